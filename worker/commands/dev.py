"""`dev`: development servers, a worker and the page in one terminal; a file dropped on the page becomes a job."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from worker import client
from worker.adapters.web.http_server import Upload, UploadRefused
from worker.app.page.host import fleet_pages
from worker.app.recogniser import demand_engine, may_do_without_gpu
from worker.commands.console import fail, load_settings, out, say
from worker.commands.emulators import local_model
from worker.commands.health_port import OK, USUAL_PORT, fetch
from worker.commands.job_fields import job_id_of, upload_file, video_id_of
from worker.commands.page import served
from worker.embedded.local_cloud import AUDIO_BUCKET, JOBS_TOPIC, PROJECT, LocalCloud, local_cloud
from worker.errors import WorkerError
from worker.settings import JobSettings
from worker.telemetry import configure_logging

LOG_NAME = "worker.log"
POLL_SECONDS = 0.2
STOP_SECONDS = 10.0
GIB = 1024**3


@dataclass(frozen=True, kw_only=True)
class Ports:
    """The ports to listen on; 0 takes any free one."""

    page: int
    pubsub: int
    storage: int


def dev(root: Path, ports: Ports, *, opens_browser: bool) -> None:
    """Serve until Ctrl-C, or until the worker ends."""
    started = time.monotonic()
    if os.environ.get("PARAKEET_MODEL_NAME"):
        own = load_settings().engine
        demand_engine(own, may_do_without=may_do_without_gpu(own))
    root.mkdir(parents=True, exist_ok=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)
    try:
        with (
            _log_to(root / "servers.log"),
            local_cloud(root / "gcs", pubsub_port=ports.pubsub, storage_port=ports.storage) as cloud,
        ):
            os.environ.update(cloud.urgent_environment)  # for the clients of this process and for the worker
            settings = load_settings()
            health_url = f"http://127.0.0.1:{_free_port(settings.telemetry.health_port)}"
            upload = _upload_of(settings.jobs, root)
            was_ready = threading.Event()
            pages = fleet_pages(
                [health_url],
                settings.cloud,
                objects=root / "gcs",
                upload=upload,
                is_starting=lambda: not was_ready.is_set(),
            )
            with _worker(root, health_url) as worker, served(pages, ports.page, opens_browser=opens_browser):
                say(f"servers Pub/Sub {cloud.pubsub_target}, Cloud Storage {cloud.storage_url}")
                say(f"objects {root / 'gcs'}")
                exports = f'eval "$(klipstream-worker emulators --env{_port_options(cloud)})"{_health_port(health_url)}'
                say(f"other terminals: {exports}")
                say(f"worker loading {_model()}; its log: {root / LOG_NAME}")
                if _wait_ready(worker, health_url):
                    was_ready.set()
                    took = f" after {time.monotonic() - started:.1f} s; health {health_url}"
                    say("worker ", ("ready", "green"), took)
                worker.wait()
                _worker_ended(worker, root)
    except KeyboardInterrupt:
        out().print("stopped")


def _free_port(wanted: int) -> int:
    """Return the wanted port where it is free, and else any free one."""
    for port in (wanted, 0):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)) as probe:
            return int(probe.getsockname()[1])
    raise OSError("no port is free on 127.0.0.1")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _port_options(cloud: LocalCloud) -> str:
    options = (("--pubsub-port", cloud.pubsub_target, "8085"), ("--storage-port", cloud.storage_url, "4443"))
    ports = [(name, address.rpartition(":")[2], usual) for name, address, usual in options]
    return "".join(f" {name} {port}" for name, port, usual in ports if port != usual)


def _health_port(health_url: str) -> str:
    """Return the export for `top` and `health`, where they would look for the worker at another port."""
    port = health_url.rpartition(":")[2]
    return "" if port == USUAL_PORT else f"; export HEALTH_PORT={port}"


def _model() -> str:
    return Path(os.environ.get("PARAKEET_MODEL_NAME") or local_model()["PARAKEET_MODEL_NAME"]).name


@contextmanager
def _log_to(path: Path) -> Iterator[None]:
    with path.open("w", encoding="utf-8") as file:
        configure_logging("json", stream=file)
        yield


@contextmanager
def _worker(root: Path, health_url: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run the worker with the tiny model, or with the model that the environment names."""
    defaults = {"CHUNK_DURATION_MINUTES": "1", "LOG_FORMAT": "json"}
    model = {} if os.environ.get("PARAKEET_MODEL_NAME") else local_model()
    environment: Mapping[str, str] = {
        **defaults,
        **os.environ,
        **model,
        "HEALTH_PORT": health_url.rpartition(":")[2],
        "HEALTH_HOST": "127.0.0.1",
    }
    with (root / LOG_NAME).open("wb") as log:
        # a session of its own: Ctrl-C is for this process, which ends the worker after it
        process = subprocess.Popen(
            [sys.executable, "-m", "worker", "run"], env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_ready(worker: "subprocess.Popen[bytes]", url: str) -> bool:
    """Return True once the worker can do jobs, False where it has ended."""
    while worker.poll() is None:
        with suppress(OSError, HTTPException):
            if fetch(f"{url}/ready")[0] == OK:
                return True
        time.sleep(POLL_SECONDS)
    return False


def _worker_ended(worker: "subprocess.Popen[bytes]", root: Path) -> None:
    lines = (root / LOG_NAME).read_text("utf-8", errors="replace").strip().splitlines()
    fail(
        f"the worker ended with status {worker.returncode}; the end of {root / LOG_NAME}: {lines[-1] if lines else ''}"
    )


def _upload_of(jobs: JobSettings, root: Path) -> Upload:
    """Return the upload of the page: a file becomes an object and a job."""
    most_bytes = int(jobs.max_file_size_gb * GIB)

    async def take(name: str, content: AsyncIterator[bytes]) -> str:
        with tempfile.TemporaryDirectory(dir=root, prefix="upload-") as folder:
            path = Path(folder) / f"audio{Path(name).suffix}"
            await _receive(path, content, most_bytes)
            video_id = video_id_of(name)
            try:
                uri = await upload_file(path, PROJECT, AUDIO_BUCKET, video_id)
            except (WorkerError, OSError) as exc:
                raise UploadRefused(f"{name} was not uploaded: {exc}") from exc
        job_id = job_id_of(video_id)
        job = {
            "job_id": job_id,
            "video_id": video_id,
            "audio_uri": uri,
            "metadata": {"audio_uri": uri, "file_name": name},
        }
        await asyncio.to_thread(client.submit, job, project_id=PROJECT, topic=JOBS_TOPIC)
        return job_id

    return take


async def _receive(path: Path, content: AsyncIterator[bytes], most_bytes: int) -> None:
    size = 0
    with path.open("wb") as file:
        async for part in content:
            size += len(part)
            if size > most_bytes:
                raise UploadRefused(f"the file is larger than MAX_FILE_SIZE_GB allows ({most_bytes / GIB:g} GiB)")
            await asyncio.to_thread(file.write, part)
    if not size:
        raise UploadRefused("the file is empty")
