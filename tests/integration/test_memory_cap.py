"""An L4's memory, simulated, and batches that are much too large for it: no job fails, the cap is never crossed."""

import asyncio

import pytest

from tests.support.audio.media import riff_wav
from tests.support.audio.speech_bank import bank
from tests.support.engines.capped_engine import MEASURED, UNMEASURED, WEIGHTS_BYTES, capped_engine
from tests.support.jobs.harness import speech
from tests.support.workers.cloud import Cloud
from worker.ports import SAMPLE_RATE_HZ

CAP_GIB = 20
BATCH_SIZE = 256
JOBS = 4

pytest.importorskip("torch")


@pytest.mark.parametrize("model", [MEASURED, UNMEASURED])
async def test_jobs_are_done_below_the_cap_with_batches_much_too_large_for_it(cloud: Cloud, model: str) -> None:
    audio = riff_wav(speech(600).astype("<i2").tobytes())

    async with capped_engine(model, batch_size=BATCH_SIZE, cap_gib=CAP_GIB) as engine:
        async with cloud.working(engine) as pipeline:
            uri = await pipeline.upload(audio)
            for number in range(JOBS):
                await pipeline.submit(uri, f"job-{number}")
            endings = [await pipeline.ending(f"job-{number}") for number in range(JOBS)]
        health = engine.health

    assert [ending.completed.transcription_metadata.chunks_fallback for ending in endings] == [0] * JOBS
    assert WEIGHTS_BYTES < health.device_memory_bytes <= CAP_GIB * 2**30
    assert health.restarts == 0


async def test_memory_that_others_take_and_give_back_costs_no_window() -> None:
    window = bank()[0].samples[: 30 * SAMPLE_RATE_HZ]

    async with capped_engine(MEASURED, batch_size=8, cap_gib=CAP_GIB) as engine:
        for _ in range(40):
            await asyncio.gather(*(engine.recognise(window, "job") for _ in range(80)))
        health = engine.health

    assert health.device_memory_bytes <= CAP_GIB * 2**30
    assert health.restarts == 0
