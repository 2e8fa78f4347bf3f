"""A run in which everything happens once, and `/metrics` afterwards: every metric of the register is there."""

from pathlib import Path

import pytest
from pydantic import SecretStr
from requests import Session

from tests.support.audio.media import riff_wav
from tests.support.engines.dropping_recogniser import DroppingRecogniser, voices
from tests.support.engines.failing_recognisers import StuckRecogniser
from tests.support.engines.mortal_engine import make_deadly, mortal_engine
from tests.support.engines.nvml import Driver
from tests.support.jobs.harness import JobsRoom, OnlySlot, speech
from tests.support.queues.consumer_harness import room
from tests.support.services.deepgram import hear
from tests.support.services.gcs import store_at
from tests.support.telemetry import render, series
from tests.support.wait import eventually
from tests.support.workers.cloud import Cloud
from tests.support.workers.in_process import Watched, watched
from worker.adapters.gpu import Gpus
from worker.adapters.machine.clock import SystemClock
from worker.adapters.pubsub.backlog_metric import BacklogMetric
from worker.core.transcript.planning import ChunkCutter
from worker.embedded.deepgram import EmbeddedDeepgram
from worker.embedded.deepgram.misbehaviour import Reset
from worker.errors import QueueServiceError, StorageServiceError
from worker.ports import ObjectRef
from worker.telemetry.register import ENGINE_RESTARTS, REGISTER, Counter, Histogram

# The process dies in the second of its two chunks, which goes to Deepgram; its first request is lost there.
CHUNK_SECONDS = 30.0
AUDIO = make_deadly(speech(60), 45.0)
MISBEHAVIOUR = {0: Reset(after_upload=True)}


async def bad_words(folder: Path) -> None:
    """A job whose words look wrong."""
    jobs = JobsRoom(folder, recogniser=StuckRecogniser())  # type: ignore[arg-type] # a recogniser all the same
    await jobs.upload(speech(20))
    await jobs.attempt().handle(OnlySlot())


async def missing_words(folder: Path) -> None:
    """A job whose engine loses words, which a second pass finds."""
    audio = voices(120, 8)
    cutter = ChunkCutter(CHUNK_SECONDS)
    windows = [chunk.samples_of(span) for chunk in (*cutter.push(audio), *cutter.finish()) for span in chunk.windows]
    jobs = JobsRoom(folder, recogniser=DroppingRecogniser(8, windows), chunk_seconds=CHUNK_SECONDS)
    await jobs.upload(audio)
    await jobs.attempt().handle(OnlySlot())


async def lost_lease() -> None:
    """A delivery that cannot be extended."""
    async with room() as delivery_room:
        await delivery_room.deliver("m1")
        delivery_room.subscription.extend_error = QueueServiceError("extend", "jobs", "503")
        await delivery_room.clock.advance(11)


async def bucket_that_does_not_answer() -> None:
    """A call to Cloud Storage that is repeated in vain."""
    async with store_at("http://127.0.0.1:1") as store:
        with pytest.raises(StorageServiceError):
            await store.stat(ObjectRef("absent", "object"))


async def good_and_bad_jobs(worker: Watched) -> None:
    audio = await worker.pipeline.upload(riff_wav(AUDIO.astype("<i2").tobytes()))
    await worker.pipeline.submit(audio, job_id="good")
    await worker.pipeline.submit("gs://local-audio/absent", job_id="bad")
    assert (await worker.pipeline.ending("good", 120)).completed.transcription_metadata.chunks_fallback == 1
    assert (await worker.pipeline.ending("bad", 120)).failed


async def is_counted(worker: Watched, name: str) -> bool:
    found = series((await worker.get("metrics"))[1])
    return any(value for (sample, _), value in found.items() if sample == name)


async def test_every_metric_of_the_register_is_emitted_and_read_back(cloud: Cloud, tmp_path: Path) -> None:
    render()  # the process's meter provider, before anything is emitted
    async with EmbeddedDeepgram(hear, misbehave=MISBEHAVIOUR.get) as deepgram, mortal_engine() as engine:
        settings = {
            "deepgram_api_key": SecretStr(deepgram.api_key),
            "deepgram_base_url": deepgram.url,
            "chunk_duration_minutes": CHUNK_SECONDS / 60,
            "fallback_budget_usd_per_day": 5.0,
        }
        urgent = BacklogMetric("local", "urgent", SystemClock(), Session)  # not refreshed: it has what was last seen
        urgent.messages, urgent.oldest_seconds = 2, 1.5
        async with watched(cloud, engine, Gpus(Driver()), render, urgent, **settings) as worker:
            worker.serve()
            await good_and_bad_jobs(worker)
            await bad_words(tmp_path)
            await missing_words(tmp_path)
            await lost_lease()
            await bucket_that_does_not_answer()
            await eventually(lambda: is_counted(worker, ENGINE_RESTARTS.name))
            status, page = await worker.get("metrics")

    found = series(page)
    counted = {sample for (sample, _), value in found.items() if value}
    present = {sample for sample, _ in found}
    assert status == 200
    for metric in REGISTER:
        match metric:
            case Counter():
                assert metric.name in counted
            case Histogram():
                assert f"{metric.name}_count" in counted
            case _:
                assert metric.name in present
