"""The health port of a whole worker: while it starts, works, loses its inference process and gets another."""

import asyncio
import json
import os
import signal
import statistics
import time
from collections.abc import Awaitable

import pytest

from tests.support.jobs import speech
from tests.support.media import riff_wav
from tests.support.mortal_engine import main
from tests.support.waiting import eventually
from tests.support.watched import watched
from tests.support.worker import Cloud
from worker.adapters.memory.null_engine import null_engine
from worker.adapters.parakeet.engine import ParakeetEngine
from worker.commands.health import fetch, health

HANG_SECONDS = 10.0
ANSWER_SECONDS = 0.05


def patient_engine() -> ParakeetEngine:
    """A real inference process without a model, supervised with the patience of production."""
    return ParakeetEngine(
        model_name="mortal", device="cpu", batch_size=4, memory_limit_gib=1, log_format="json", program=main
    )


@pytest.mark.timeout(180)
async def test_a_hung_inference_process_is_told_within_seconds_and_the_worker_lives_on(cloud: Cloud) -> None:
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


async def test_health_answers_at_once_while_the_worker_is_busy(cloud: Cloud) -> None:
    async with watched(cloud, null_engine(float("inf"))) as worker:
        worker.serve()
        uri = await worker.pipeline.upload(riff_wav(speech(900).astype("<i2").tobytes()))
        for number in range(8):
            await worker.pipeline.submit(uri, job_id=f"job-{number}")

        answers = [await timed(worker.url) for _ in range(40)]
        await worker.pipeline.ending("job-7")

    assert statistics.median(answers) < ANSWER_SECONDS


async def timed(url: str) -> float:
    """Seconds of one answer, without what the test's own event loop takes."""

    def ask() -> float:
        began = time.perf_counter()
        fetch(f"{url}/health")
        return time.perf_counter() - began

    return await asyncio.to_thread(ask)


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
