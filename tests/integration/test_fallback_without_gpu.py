"""Workers that have nothing but Deepgram: it does everything, it is down, it has no key, its money is spent."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import pytest
from pydantic import SecretStr

from schemas.codes import ErrorCode, Method
from tests.support.audio.media import riff_wav
from tests.support.engines.failing_recognisers import everything, failing_where
from tests.support.engines.scripted_engine import Stage
from tests.support.jobs.harness import speech
from tests.support.services.deepgram import hear
from tests.support.wait import eventually
from tests.support.workers.cloud import Cloud
from tests.support.workers.worker_process import TINY
from worker.adapters.memory.cloud_recogniser import MemoryCloudRecogniser
from worker.app.engines import started_or_none
from worker.app.recogniser import NoEngine
from worker.core.costs.budget import NoLimit, PaidRecogniser
from worker.core.delivery.consumer import Consumer
from worker.embedded.deepgram import EmbeddedDeepgram, Reply
from worker.errors import DeepgramUnavailable, GpuNotAvailable

AUDIO = riff_wav(speech(65).astype("<i2").tobytes())
OFF = NoEngine("ENABLE_GPU_TRANSCRIPTION is false")
WITHOUT_GPU = {"enable_gpu_transcription": False, "chunk_duration_minutes": 0.5}
NULL = {**TINY, "PARAKEET_MODEL_NAME": "null", "DEEPGRAM_API_KEY": ""}

pytestmark = pytest.mark.long


def paid_by(recogniser: MemoryCloudRecogniser) -> PaidRecogniser:
    return PaidRecogniser(recogniser=recogniser, usd_per_minute=0.0045, budget=NoLimit())


async def test_everything_goes_through_deepgram(cloud: Cloud) -> None:
    async with EmbeddedDeepgram(hear) as deepgram:
        key = {"deepgram_api_key": SecretStr(deepgram.api_key), "deepgram_base_url": deepgram.url}
        async with cloud.working(OFF, **WITHOUT_GPU, **key) as pipeline:
            await pipeline.submit(await pipeline.upload(AUDIO))
            ending = await pipeline.ending()

    told = ending.completed.transcription_metadata
    assert (told.method_used, told.routing_reason, told.model_name) == (Method.DEEPGRAM, "gpu_disabled", "nova-3")
    assert (told.gpu_used, told.device_used, told.fallback_used, told.chunks_fallback) == (False, None, False, 0)
    assert set(deepgram.payments().values()) == {1}
    assert len(deepgram.receipts) == told.chunks_total == 3
    (paid,) = ending.cost.engines
    assert (paid.engine, paid.requests) == ("deepgram", 3)
    assert paid.usd == ending.cost.usd_total == ending.cost.baseline.usd == 0.004875  # 65 s at 0.0045 a minute


async def test_a_job_waits_for_a_key_that_is_refused_and_loses_no_attempt(cloud: Cloud) -> None:
    refused = {0: Reply(status=401, body=b"no such key")}
    async with EmbeddedDeepgram(hear, misbehave=refused.get) as deepgram:
        key = {"deepgram_api_key": SecretStr(deepgram.api_key), "deepgram_base_url": deepgram.url}
        settings = {**WITHOUT_GPU, **key, "chunks_in_flight": 1, "max_job_attempts": 1}
        async with cloud.pipeline() as pipeline, cloud.worker(OFF, **settings) as consumer:
            await pipeline.submit(await pipeline.upload(AUDIO))
            await eventually(lambda: is_stopped(consumer))
            reason = consumer.snapshot.intake_stopped_because
            ending = await pipeline.ending()

    assert "refuses the API key (401)" in reason
    assert ending.completed.transcription_metadata.deliveries == 1
    assert set(deepgram.payments().values()) == {1}


def answer_of(words: list[dict[str, object]], seconds: float) -> Reply:
    alternative = {"transcript": "said", "words": words}
    metadata = {"request_id": "r\ud800-1", "duration": seconds}
    answer = {"metadata": metadata, "results": {"channels": [{"alternatives": [alternative]}]}}
    return Reply(status=200, body=json.dumps(answer).encode())


async def test_an_answer_that_could_not_be_stored_as_it_is_is_paid_for_once_and_kept(cloud: Cloud) -> None:
    words: list[dict[str, object]] = [
        {"word": "broken\ud800", "start": None, "end": 1e300, "confidence": None},
        {"word": "nul\x00", "start": 2.0, "end": 3.0},
    ]
    async with EmbeddedDeepgram(hear, misbehave=lambda _: answer_of(words, 20.0)) as deepgram:
        key = {"deepgram_api_key": SecretStr(deepgram.api_key), "deepgram_base_url": deepgram.url}
        async with cloud.working(OFF, **WITHOUT_GPU, **key) as pipeline:
            await pipeline.submit(await pipeline.upload(riff_wav(speech(20).astype("<i2").tobytes())), outputs=["srt"])
            ending = await pipeline.ending()
            artefacts = await pipeline.artefacts(ending.completed)

    (paid,) = ending.cost.engines
    assert len(deepgram.receipts) == 1
    assert paid.requests == 1
    assert paid.request_ids == ("r-1",)
    assert "broken\ufffd" in artefacts["audio_vod-job-1.srt"].decode()
    assert b",nul\r\n" in artefacts["audio_vod-job-1_words.csv"]


async def test_a_job_that_deepgram_alone_could_do_and_fails_is_tried_again_and_then_dead_lettered(cloud: Cloud) -> None:
    tries = 0

    def unavailable() -> Exception:
        nonlocal tries
        tries += 1
        return DeepgramUnavailable("the connection failed")

    down = MemoryCloudRecogniser(script=failing_where(everything, unavailable))
    async with cloud.working(OFF, paid_by(down), **WITHOUT_GPU, chunks_in_flight=1, max_job_attempts=3) as pipeline:
        await pipeline.submit(await pipeline.upload(AUDIO))
        failed = (await pipeline.ending()).failed

    async with cloud.pipeline() as pipeline:
        (letter,) = await pipeline.dead_letters()
    assert tries == 3
    assert failed.error.error_code is letter.code is ErrorCode.TRANSCRIPTION_FALLBACK_FAILED
    assert failed.error.is_retryable
    assert letter.attempts == 3


async def test_a_job_that_insists_on_parakeet_is_refused(cloud: Cloud) -> None:
    async with cloud.working(OFF, paid_by(MemoryCloudRecogniser()), **WITHOUT_GPU) as pipeline:
        await pipeline.submit(await pipeline.upload(AUDIO), force_method="parakeet")
        failed = (await pipeline.ending()).failed

    assert failed.error.error_code is ErrorCode.GPU_NOT_AVAILABLE
    assert not failed.error.is_retryable


async def test_a_gpu_that_is_missing_is_no_reason_to_refuse_what_deepgram_can_do(cloud: Cloud) -> None:
    gone = NoEngine("CUDA finds no device")
    async with cloud.working(gone, paid_by(MemoryCloudRecogniser())) as pipeline:
        uri = await pipeline.upload(AUDIO)
        await pipeline.submit(uri)
        await pipeline.submit(uri, "job-2", force_method="parakeet")
        routed, forced = (await pipeline.ending()).completed, (await pipeline.ending("job-2")).completed

    assert routed.transcription_metadata.routing_reason == "gpu_unhealthy"
    assert forced.transcription_metadata.fallback_reasons == {"GPU_NOT_AVAILABLE": 1}


async def is_stopped(consumer: Consumer) -> bool:
    return bool(consumer.snapshot.intake_stopped_because)


async def test_the_intake_stops_when_the_gpu_is_gone_and_the_budget_is_spent(cloud: Cloud) -> None:
    settings = {"deepgram_api_key": SecretStr("a-key"), "fallback_budget_usd_per_day": 0.001, **WITHOUT_GPU}
    async with cloud.pipeline() as pipeline, cloud.worker(OFF, **settings) as consumer:
        uri = await pipeline.upload(AUDIO)
        await pipeline.submit(uri)
        failed = (await pipeline.ending()).failed
        await eventually(lambda: is_stopped(consumer))
        reason = consumer.snapshot.intake_stopped_because
        await eventually(lambda: asyncio.sleep(0, consumer.snapshot.unsettled == 0))
        await pipeline.submit(uri, "job-2")
        consumer.stop("the test is over")  # gracefully: a pull in flight may bring the message, which is then nacked

        async def is_waiting() -> bool:
            return any(b"job-2" in data for data in await pipeline.unsettled())

        await eventually(is_waiting)

    assert failed.error.error_code is ErrorCode.FALLBACK_BUDGET_EXHAUSTED
    assert "budget is spent" in reason


def started(cloud: Cloud, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """The command `run`, to its end."""
    everything_set: Mapping[str, str] = {**os.environ, **NULL, **cloud.environment, **environment}
    command = [sys.executable, "-m", "worker", "run"]
    return subprocess.run(command, env=everything_set, capture_output=True, timeout=60, check=False)


@pytest.mark.parametrize("only", ["ENABLE_GPU_TRANSCRIPTION=false", "TRANSCRIPTION_METHOD=deepgram"])
def test_without_a_key_a_worker_that_needs_one_does_not_start(cloud: Cloud, only: str) -> None:
    name, value = only.split("=")

    ended = started(cloud, **{name: value})

    assert ended.returncode == 1
    assert f"DEEPGRAM_API_KEY is not set, and {only} leaves nothing else".encode() in ended.stderr


def test_a_model_without_a_price_is_refused_at_the_start(cloud: Cloud) -> None:
    ended = started(cloud, DEEPGRAM_MODEL="nova-9")

    assert ended.returncode == 1
    assert b"set DEEPGRAM_USD_PER_MINUTE" in ended.stderr


def test_without_a_key_a_worker_that_can_do_without_says_so_and_starts(cloud: Cloud) -> None:
    with cloud.process(**NULL) as worker:
        worker.wait_ready()

    (warning,) = worker.logged("check.done", check="Deepgram nova-3")
    assert warning["severity"] == "WARNING"
    assert "the fallback is off" in warning["detail"]


def test_without_a_gpu_no_inference_process_is_started(cloud: Cloud) -> None:
    with cloud.process(**{**NULL, "ENABLE_GPU_TRANSCRIPTION": "false", "DEEPGRAM_API_KEY": "a-key"}) as worker:
        worker.wait_ready()
        family = [" ".join(member.cmdline()) for member in worker.family()]

    assert not any("parakeet.child" in line for line in family)


@pytest.mark.parametrize("may_do_without", [True, False])
async def test_an_engine_that_finds_no_gpu_is_done_without_where_that_may_be(
    tmp_path: Path, may_do_without: bool
) -> None:
    stage = Stage(tmp_path)
    stage.refuse(1, "gpu")
    starting = started_or_none(stage.engine(), may_do_without=may_do_without)

    with nullcontext() if may_do_without else pytest.raises(GpuNotAvailable):
        async with starting as engine:
            assert isinstance(engine, NoEngine)


@pytest.mark.model
def test_a_worker_that_finds_no_gpu_starts_with_deepgram_alone_where_it_may(cloud: Cloud) -> None:
    with cloud.process(PARAKEET_DEVICE="cuda", DEEPGRAM_API_KEY="a-key") as worker:
        worker.wait_ready()

    (warning,) = worker.logged("worker.no_gpu")
    assert warning["severity"] == "WARNING"
    assert warning["consequence"] == "every job goes to Deepgram"
