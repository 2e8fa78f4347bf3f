"""The health port of a whole worker: while it starts, works, loses its inference process and gets another."""

import asyncio
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Awaitable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import pytest

from tests.support.audio.media import riff_wav
from tests.support.engines.mortal_engine import main
from tests.support.jobs.harness import speech
from tests.support.wait import eventually, wait_until
from tests.support.workers.cloud import Cloud
from tests.support.workers.in_process import watched
from tests.support.workers.worker_process import START_SECONDS, WorkerProcess
from worker.adapters.memory.recogniser import null_engine
from worker.adapters.parakeet.engine import ParakeetEngine
from worker.adapters.parakeet.protocol import EngineOptions
from worker.adapters.web.answers import Answer
from worker.adapters.web.http_server import HealthServer
from worker.commands.health import health
from worker.commands.health_port import fetch

HANG_SECONDS = 10.0
ANSWER_SECONDS = 0.05
PAUSE_SECONDS = 0.02
BUSY_JOBS = 8
OPEN_PAGES = 3
# Five of a hundred answers may be late. On a busy machine, measured by an idle server beside the worker, twice the idle
# server's share may be late as well.
LATE_SHARE = 0.05
IDLE = {"/health": lambda: Answer(status=200, body=b"{}")}

pytestmark = pytest.mark.alone


def patient_engine() -> ParakeetEngine:
    """A real inference process without a model, supervised with the patience of production."""
    return ParakeetEngine(
        EngineOptions(model_name="mortal", device="cpu", batch_size=4, memory_limit_gib=1, log_format="json"),
        program=main,
    )


async def test_a_hung_inference_process_is_detected_within_seconds_and_the_worker_stays_alive(cloud: Cloud) -> None:
    async with patient_engine() as engine, watched(cloud, engine) as worker:
        while_loading = [await worker.status(page) for page in ("live", "ready", "health")]
        worker.serve()
        await eventually(lambda: is_status(worker.status("ready"), 200))
        at_work = json.loads((await worker.get("health"))[1])

        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGSTOP)
        hung_at = time.monotonic()
        await eventually(lambda: is_status(worker.status("ready"), 503), HANG_SECONDS)
        noticed_after = time.monotonic() - hung_at
        while_hung = [await worker.status(page) for page in ("live", "health")]
        await eventually(lambda: is_status(worker.status("ready"), 200), 60)
        afterwards = json.loads((await worker.get("health"))[1])

    assert while_loading == [200, 503, 503]
    assert (at_work["status"], at_work["engine"]["restarts"]) == ("healthy", 0)
    assert noticed_after < HANG_SECONDS
    assert while_hung == [200, 503]
    assert (afterwards["status"], afterwards["engine"]["restarts"]) == ("healthy", 1)


async def is_status(asked: Awaitable[int], wanted: int) -> bool:
    return await asked == wanted


@pytest.mark.model
@pytest.mark.timeout(600)
async def test_a_hung_model_is_replaced_under_a_job_while_the_worker_stays_alive(
    cloud: Cloud, ten_minutes: Path
) -> None:
    small_chunks = {"CHUNK_DURATION_MINUTES": "0.5", "GPU_BATCH_SIZE": "1"}
    async with cloud.pipeline() as pipeline:
        uri = await pipeline.upload(ten_minutes)
        with cloud.process(**small_chunks) as worker:
            worker.wait_ready()
            url = address(worker)
            await pipeline.submit(uri)
            worker.wait_for("chunk.done")

            with Poll(url, "live") as live:
                worker.inference().suspend()
                hung_at = time.monotonic()
                wait_until(lambda: fetch(f"{url}/ready")[0] == 503, HANG_SECONDS)
                noticed_after = time.monotonic() - hung_at
                while_hung = fetch(f"{url}/health")[0]
                wait_until(lambda: fetch(f"{url}/ready")[0] == 200, START_SECONDS)
                completed = (await pipeline.ending(seconds=300)).completed

    assert noticed_after < HANG_SECONDS
    assert while_hung == 503
    assert {status for status, _ in live.answers} == {200}
    assert completed.transcription_metadata.deliveries == 1
    assert completed.transcription_metadata.fallback_used is False


async def test_health_answers_at_once_while_the_worker_is_busy_and_three_pages_are_open(cloud: Cloud) -> None:
    async with cloud.pipeline() as pipeline:
        uri = await pipeline.upload(riff_wav(speech(900).astype("<i2").tobytes()))
        with cloud.process(PARAKEET_MODEL_NAME="null") as worker, HealthServer(IDLE, host="127.0.0.1", port=0) as idle:
            worker.wait_ready()
            url = address(worker)
            wait_until(lambda: fetch(f"{url}/ready")[0] == 200)

            with (
                open_pages(url, OPEN_PAGES) as pages,
                Poll(url, "health") as busy,
                Poll(idle.url, "health") as at_rest,
            ):
                for number in range(BUSY_JOBS):
                    await pipeline.submit(uri, job_id=f"job-{number}")
                await asyncio.to_thread(worker.wait_for, "job.done", BUSY_JOBS)

    assert {status for status, _ in busy.answers} == {200}
    assert all("job-" in page for page in pages)
    assert late(busy) <= LATE_SHARE + 2 * late(at_rest)


@contextmanager
def open_pages(url: str, count: int) -> Iterator[list[str]]:
    """Keep the page open that many times, and yield what each open page has received so far."""
    parts, received = urlsplit(url), [""] * count

    def look(number: int, connection: socket.socket) -> None:
        connection.sendall(b"GET /updates HTTP/1.1\r\nhost: localhost\r\n\r\n")
        while data := connection.recv(1 << 16):
            received[number] += data.decode(errors="replace")

    with ExitStack() as stack:
        for number in range(count):
            connection = stack.enter_context(socket.create_connection((parts.hostname or "", parts.port or 0)))
            thread = threading.Thread(target=look, args=(number, connection))
            thread.start()
            stack.callback(thread.join)
            stack.callback(connection.shutdown, socket.SHUT_RDWR)
        yield received


def address(worker: WorkerProcess) -> str:
    (listening,) = worker.logged("health.listening")
    return str(listening["url"])


def late(poll: "Poll") -> float:
    """Share of the answers that took too long."""
    return sum(seconds > ANSWER_SECONDS for _, seconds in poll.answers) / len(poll.answers)


class Poll:
    """Asks for a page again and again, in a thread of its own, for the length of a block."""

    def __init__(self, url: str, page: str) -> None:
        self._url = f"{url}/{page}"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.answers: list[tuple[int, float]] = []
        """Status and seconds of each."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._over.wait(PAUSE_SECONDS):
            began = time.perf_counter()
            status, _ = fetch(self._url)
            self.answers.append((status, time.perf_counter() - began))


async def test_a_taken_port_is_a_clear_error_at_the_start(cloud: Cloud) -> None:
    async with watched(cloud, null_engine(float("inf"))) as first:
        port = first.url.rpartition(":")[2]

        with cloud.process("second", HEALTH_PORT=port, PARAKEET_MODEL_NAME="null") as second:
            code = second.wait(60)

    said = (cloud.folder / "second.log").read_text()
    assert code == 1
    assert f"HEALTH_PORT {port} on 127.0.0.1" in said
    assert "Traceback" not in said


def test_the_health_command_says_no_where_nothing_listens(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        health("http://127.0.0.1:9", "health")

    assert ended.value.code == 1
    assert "no answer" in capsys.readouterr().err
