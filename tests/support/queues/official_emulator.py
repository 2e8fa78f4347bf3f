"""The official Pub/Sub emulator, where it is installed. A pytest plugin: the fixture is `official_emulator`."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.support.wait import wait_until

START_SECONDS = 60.0


def missing_part() -> str | None:
    """Return the reason why the emulator cannot start here, or an empty string."""
    for program in ("gcloud", "java"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    sdk = subprocess.run(
        ["gcloud", "info", "--format=value(installation.sdk_root)"], capture_output=True, text=True, check=True
    ).stdout.strip()
    return None if Path(sdk, "platform", "pubsub-emulator").is_dir() else "gcloud has no component pubsub-emulator"


@pytest.fixture(scope="session")
def official_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`host:port` of a running emulator; skips without one, fails instead where CI_REQUIRE_EMULATOR is set."""
    if reason := missing_part():
        if os.environ.get("CI_REQUIRE_EMULATOR"):
            pytest.fail(f"the official Pub/Sub emulator is required: {reason}")
        pytest.skip(f"no official Pub/Sub emulator: {reason}")
    with running_emulator(tmp_path_factory.mktemp("pubsub-emulator")) as target:
        yield target


@contextmanager
def running_emulator(folder: Path) -> Iterator[str]:
    target, log = f"127.0.0.1:{_free_port()}", folder / "log"
    command = ["gcloud", "beta", "emulators", "pubsub", "start", f"--host-port={target}", f"--data-dir={folder}"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        wait_until(lambda: "Server started" in log.read_text() or process.poll() is not None, START_SECONDS)
        assert process.poll() is None, log.read_text()
        yield target
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End gcloud and its java child: one process group, for gcloud does not pass signals on."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for sent in (signal.SIGTERM, signal.SIGKILL):
        if any(member.is_running() for member in family):
            os.killpg(process.pid, sent)
        _, family = psutil.wait_procs(family, timeout=5)
    process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
