"""A job that is cancelled while Deepgram works for it: what is paid for is kept, and nothing else is waited for."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.support.jobs.harness import JobsRoom, OnlySlot, never, speech
from tests.support.wait import eventually
from worker.adapters.memory.cloud_recogniser import MemoryCloudRecogniser
from worker.adapters.memory.recogniser import MemoryRecogniser
from worker.core.costs.budget import NoLimit, PaidRecogniser
from worker.core.jobs import transcription
from worker.ports import ObjectRef, Pcm

BY_DEEPGRAM = {"force_method": "deepgram"}
AUDIO = speech(44)


class Service:
    """A paid service that answers when it may; `asked` counts its requests."""

    def __init__(self) -> None:
        self.may_answer, self.asked = asyncio.Event(), 0
        self.cloud = MemoryCloudRecogniser(script=self._serve, cancelled_seconds=3.0)
        self.deepgram = PaidRecogniser(recogniser=self.cloud, usd_per_minute=0.0045, budget=NoLimit())

    async def _serve(self, _samples: Pcm, _job_id: str) -> None:
        self.asked += 1
        await self.may_answer.wait()

    async def is_asked(self) -> bool:
        return self.asked == 2


async def under_way(folder: Path) -> tuple[JobsRoom, Service, asyncio.Task[None]]:
    """A job of three chunks, two of which Deepgram has been sent."""
    service = Service()
    room = JobsRoom(folder, deepgram=service.deepgram)
    await room.upload(AUDIO)
    job = asyncio.create_task(room.attempt(**BY_DEEPGRAM).handle(OnlySlot()))
    await eventually(service.is_asked)
    return room, service, job


def checkpoints(room: JobsRoom) -> int:
    return sum(name.startswith("checkpoints/") for name in room.state)


async def test_answers_to_what_was_sent_are_kept_and_the_job_ends_cancelled(tmp_path: Path) -> None:
    room, service, job = await under_way(tmp_path)

    job.cancel()
    asyncio.get_running_loop().call_later(0.05, service.may_answer.set)
    await asyncio.wait({job})

    assert job.cancelled()
    assert (service.asked, checkpoints(room)) == (2, 2)
    assert room.events == []


async def test_the_next_worker_pays_for_the_rest_only(tmp_path: Path) -> None:
    room, service, job = await under_way(tmp_path)
    job.cancel()
    service.may_answer.set()
    await asyncio.wait({job})

    following = JobsRoom(tmp_path, store=room.store, deepgram=service.deepgram, worker="worker-2")
    await following.attempt(**BY_DEEPGRAM).handle(OnlySlot())

    told = following.events[0].transcription_metadata
    assert (told.chunks_total, told.chunks_resumed, service.asked) == (3, 2, 3)


async def test_answers_that_do_not_come_are_not_waited_for(tmp_path: Path) -> None:
    room, service, job = await under_way(tmp_path)
    service.cloud._cancelled_seconds = 0.05

    job.cancel()
    await asyncio.wait({job}, timeout=2)

    assert job.cancelled()
    assert checkpoints(room) == 0


class HeldWrites:
    """Holds the writes of checkpoints up."""

    def __init__(self, room: JobsRoom, monkeypatch: pytest.MonkeyPatch) -> None:
        self.may_write, self.begun = asyncio.Event(), 0
        self._write = room.store.write
        monkeypatch.setattr(room.store, "write", self._held)

    async def _held(self, ref: ObjectRef, data: bytes, **options: Any) -> Any:
        if ref.name.startswith("checkpoints/"):
            self.begun += 1
            await self.may_write.wait()
        return await self._write(ref, data, **options)

    async def have_begun(self) -> bool:
        return self.begun == 2


async def test_a_checkpoint_that_is_being_written_when_the_job_is_cancelled_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, service, job = await under_way(tmp_path)
    writes = HeldWrites(room, monkeypatch)
    service.may_answer.set()
    await eventually(writes.have_begun)

    job.cancel()
    await asyncio.sleep(0)
    writes.may_write.set()
    await asyncio.wait({job})

    assert job.cancelled()
    assert checkpoints(room) == 2


@pytest.mark.parametrize("first", ["the answer", "the cancellation"])
async def test_a_checkpoint_that_cannot_be_written_does_not_delay_the_shutdown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    monkeypatch.setattr(transcription, "CANCELLED_SAVE_SECONDS", 0.05)
    room, service, job = await under_way(tmp_path)
    writes = HeldWrites(room, monkeypatch)
    if first == "the answer":
        service.may_answer.set()
        await eventually(writes.have_begun)

    job.cancel()
    service.may_answer.set()
    await asyncio.wait({job}, timeout=2)

    assert job.cancelled()
    assert checkpoints(room) == 0


async def test_what_parakeet_works_on_is_dropped_at_once(tmp_path: Path) -> None:
    service = Service()
    room = JobsRoom(tmp_path, recogniser=MemoryRecogniser(script=never), deepgram=service.deepgram)
    await room.upload(AUDIO)
    job = asyncio.create_task(room.attempt().handle(OnlySlot()))
    await eventually(lambda: asyncio.sleep(0, "claims/job-1.json" in room.state))

    job.cancel()
    await asyncio.wait({job}, timeout=1)

    assert job.cancelled()
    assert service.asked == 0
