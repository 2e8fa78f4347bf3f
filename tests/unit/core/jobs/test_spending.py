"""Charges of a job over all its attempts: finished chunks, and failed ones."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from schemas.events import CostEvent, DeepgramCost, ParakeetCost
from tests.support.engines.failing_recognisers import failing_where
from tests.support.jobs.harness import JobsRoom, OnlySlot, speech
from tests.support.wait import eventually
from worker.adapters.memory.cloud_recogniser import MemoryCloudRecogniser
from worker.adapters.memory.recogniser import MemoryRecogniser
from worker.core.costs.budget import NoLimit, PaidRecogniser
from worker.core.jobs.attempt import JobAttempt
from worker.errors import DeepgramUnusable, EngineFailure, ObjectNotFound, StorageServiceError
from worker.ports import SAMPLE_RATE_HZ, ObjectRef, Pcm

BY_DEEPGRAM = {"force_method": "deepgram"}
LAST_CHUNK_SECONDS = 12


def is_last_chunk(samples: Pcm) -> bool:
    return len(samples) < LAST_CHUNK_SECONDS * SAMPLE_RATE_HZ


def billed_for_nothing() -> Exception:
    error = DeepgramUnusable("it cannot be read as JSON")
    error.wasted_requests = 2
    return error


class Fault:
    """An error for the last chunk, until it is mended."""

    def __init__(self, error: Callable[[], Exception]) -> None:
        self._error, self.mended = error, False
        self.script = failing_where(lambda samples: not self.mended and is_last_chunk(samples), error)


def room_with(folder: Path, cloud: MemoryCloudRecogniser, **options: object) -> JobsRoom:
    deepgram = PaidRecogniser(recogniser=cloud, usd_per_minute=0.0045, budget=NoLimit())
    return JobsRoom(folder, deepgram=deepgram, chunks_in_flight=1, **options)


async def fail(room: JobsRoom, attempt: JobAttempt | None = None) -> Exception:
    attempt = attempt or room.attempt(**BY_DEEPGRAM)
    with pytest.raises(DeepgramUnusable) as caught:
        await attempt.handle(OnlySlot())
    await attempt.record_failure(RuntimeError("it broke"))
    return caught.value


def bill_of(room: JobsRoom) -> CostEvent:
    (cost,) = (event for event in room.events if isinstance(event, CostEvent))
    return cost


async def test_a_failed_job_pays_for_every_request_of_every_attempt(tmp_path: Path) -> None:
    cloud = MemoryCloudRecogniser(script=Fault(billed_for_nothing).script)
    room = room_with(tmp_path, cloud)
    await room.upload(speech(44))
    await fail(room)
    await fail(room)
    last = room.attempt(**BY_DEEPGRAM)
    error = await fail(room, last)

    await last.give_up(error, 3)

    (paid,) = bill_of(room).engines
    assert isinstance(paid, DeepgramCost)
    answered = len(cloud.answered)
    seconds = sum(answer.billed_seconds for answer in cloud.answered)
    assert answered > 0
    assert paid.requests == answered + 3 * 2
    assert paid.request_ids == tuple(answer.request_id for answer in cloud.answered)
    assert paid.usd > seconds / 60 * 0.0045
    assert bill_of(room).audio_seconds == pytest.approx(seconds, abs=1)


async def test_a_job_that_fails_before_its_audio_is_read_still_pays_for_its_checkpoints(tmp_path: Path) -> None:
    cloud = MemoryCloudRecogniser(script=Fault(billed_for_nothing).script)
    room = room_with(tmp_path, cloud)
    await room.upload(speech(44))
    await fail(room)
    await room.store.delete(ObjectRef("audio", "a.pcm"))

    attempt = room.attempt(**BY_DEEPGRAM)
    with pytest.raises(ObjectNotFound) as caught:
        await attempt.handle(OnlySlot())
    await attempt.give_up(caught.value.verdict(), 1)

    (paid,) = bill_of(room).engines
    assert isinstance(paid, DeepgramCost)
    assert paid.requests == len(cloud.answered) + 2


async def test_a_completed_job_pays_for_its_failed_attempts_too(tmp_path: Path) -> None:
    fault = Fault(billed_for_nothing)
    cloud = MemoryCloudRecogniser(script=fault.script)
    room = room_with(tmp_path, cloud)
    await room.upload(speech(44))
    await fail(room)

    fault.mended = True
    await room.attempt(**BY_DEEPGRAM).handle(OnlySlot())

    (paid,) = bill_of(room).engines
    assert isinstance(paid, DeepgramCost)
    assert paid.requests == len(cloud.answered) + 2
    assert paid.audio_seconds == 44


async def test_a_failed_job_pays_for_the_engine_time_of_its_failed_chunks(tmp_path: Path) -> None:
    def broken() -> Exception:
        error = EngineFailure("parakeet", "its process ended")
        error.engine_seconds = 7.0
        return error

    room = JobsRoom(tmp_path, recogniser=MemoryRecogniser(script=Fault(broken).script), chunks_in_flight=1)
    await room.upload(speech(44))
    attempt = room.attempt()
    with pytest.raises(EngineFailure) as caught:
        await attempt.handle(OnlySlot())

    await attempt.give_up(caught.value, 1)

    (engine,) = bill_of(room).engines
    assert isinstance(engine, ParakeetCost)
    assert engine.gpu_seconds > 7.0
    assert engine.usd == pytest.approx(engine.gpu_seconds * 0.001, abs=1e-6)


async def test_a_bill_that_cannot_be_kept_hides_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = room_with(tmp_path, MemoryCloudRecogniser(script=Fault(billed_for_nothing).script))
    await room.upload(speech(44))
    write = room.store.write

    async def refuse_waste(ref: ObjectRef, data: bytes, **options: object) -> object:
        if b'"deepgram_requests":2' in data:
            raise StorageServiceError("write", ref.uri, "503")
        return await write(ref, data, **options)

    monkeypatch.setattr(room.store, "write", refuse_waste)

    with pytest.raises(DeepgramUnusable):
        await room.attempt(**BY_DEEPGRAM).handle(OnlySlot())


def refuse_once(room: JobsRoom, monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    """The first write of an object in that folder fails."""
    write, refused = room.store.write, []

    async def refuse(ref: ObjectRef, data: bytes, **options: object) -> object:
        if ref.name.startswith(prefix) and not refused:
            refused.append(ref)
            raise StorageServiceError("write", ref.uri, "503")
        return await write(ref, data, **options)

    monkeypatch.setattr(room.store, "write", refuse)


async def test_an_answer_whose_checkpoint_cannot_be_stored_is_in_the_bill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = MemoryCloudRecogniser()
    room = room_with(tmp_path, cloud)
    await room.upload(speech(44))
    refuse_once(room, monkeypatch, "checkpoints/")
    with pytest.raises(StorageServiceError):
        await room.attempt(**BY_DEEPGRAM).handle(OnlySlot())

    await room.attempt(**BY_DEEPGRAM).handle(OnlySlot())

    (paid,) = bill_of(room).engines
    assert isinstance(paid, DeepgramCost)
    assert paid.requests == len(cloud.answered) == 4
    assert paid.usd == pytest.approx(sum(answer.billed_seconds for answer in cloud.answered) / 60 * 0.0045, abs=1e-6)


async def test_what_failed_chunks_cost_is_kept_when_the_job_is_cancelled(tmp_path: Path) -> None:
    fault, waits = Fault(billed_for_nothing), asyncio.Event()

    async def serve(samples: Pcm, job_id: str) -> None:
        if is_last_chunk(samples):
            await fault.script(samples, job_id)
        elif not fault.mended:
            waits.set()
            await asyncio.Event().wait()

    async def is_failed() -> bool:
        return waits.is_set() and any(entry["event"] == "deepgram.failed" for entry in logged)

    cloud = MemoryCloudRecogniser(script=serve)
    deepgram = PaidRecogniser(recogniser=cloud, usd_per_minute=0.0045, budget=NoLimit())
    room = JobsRoom(tmp_path, deepgram=deepgram, chunks_in_flight=3)
    await room.upload(speech(44))
    with capture_logs() as logged:
        job = asyncio.create_task(room.attempt(**BY_DEEPGRAM).handle(OnlySlot()))
        await eventually(is_failed)
        job.cancel()
        await asyncio.wait({job})

    fault.mended = True
    await room.attempt(**BY_DEEPGRAM).handle(OnlySlot())

    (paid,) = bill_of(room).engines
    assert isinstance(paid, DeepgramCost)
    assert paid.requests == len(cloud.answered) + 2


@pytest.mark.parametrize("changed", [{"chunk_seconds": 15.0}, {"chunk_seconds": 30.0}])
async def test_chunks_that_a_changed_setting_made_useless_are_in_the_bill(
    tmp_path: Path, changed: dict[str, float]
) -> None:
    fault = Fault(billed_for_nothing)
    cloud = MemoryCloudRecogniser(script=fault.script)
    room = room_with(tmp_path, cloud)
    await room.upload(speech(44))
    await fail(room)
    before, fault.mended = len(cloud.answered), True

    following = room_with(tmp_path, cloud, store=room.store, worker="worker-2", **changed)
    await following.attempt(**BY_DEEPGRAM).handle(OnlySlot())

    (paid,) = bill_of(following).engines
    assert isinstance(paid, DeepgramCost)
    assert before > 0
    assert paid.requests == len(cloud.answered) + 2
    assert paid.audio_seconds == bill_of(following).audio_seconds == 44
