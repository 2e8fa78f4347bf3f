import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from schemas.codes import ErrorCode, ErrorType
from schemas.dead_letter import parse_dead_letter
from schemas.events import CompletedEvent, FailedEvent
from tests.support.clock import SteppedClock
from tests.support.jobs.harness import JobsRoom, OnlySlot, speech
from tests.support.jobs.state import checkpoint
from tests.support.wait import eventually
from worker.adapters.memory.recogniser import MemoryRecogniser
from worker.core.dead_letters.replay import Edit, edited
from worker.core.jobs.attempt import JobAttempt
from worker.errors import JobExpired
from worker.ports import ObjectRef, Pcm

LONG_AGO = "2026-11-22T10:00:00Z"


@pytest.fixture
def room(tmp_path: Path) -> JobsRoom:
    return JobsRoom(tmp_path)


async def expired(attempt: JobAttempt) -> JobExpired:
    with pytest.raises(JobExpired) as caught:
        await attempt.handle(OnlySlot())
    await attempt.give_up(caught.value, 1)
    return caught.value


async def test_a_job_that_is_delivered_too_late_fails_and_nothing_is_spent(room: JobsRoom) -> None:
    await room.upload(speech(5))

    await expired(room.attempt(expires_at=LONG_AGO))

    failed, cost = room.events
    assert isinstance(failed, FailedEvent)
    assert (failed.error.error_code, failed.error.error_type) == (ErrorCode.EXPIRED, ErrorType.PERMANENT)
    assert not failed.error.is_retryable
    assert cost.usd_total == 0
    assert len(room.dead_letters.messages) == 1
    assert room.state == ["results/job-1.json"]
    assert room.artefacts == {}


async def test_a_job_is_done_until_its_deadline(room: JobsRoom) -> None:
    await room.upload(speech(5))

    await room.attempt(expires_at=(room.clock.now() + timedelta(minutes=1)).isoformat()).handle(OnlySlot())

    assert isinstance(room.events[0], CompletedEvent)


async def test_a_job_with_a_finished_chunk_was_begun_and_is_finished(room: JobsRoom) -> None:
    await room.upload(speech(5))
    begun = ObjectRef("state", "checkpoints/job-1/of-some-worker/00000.json")
    await room.store.write(begun, checkpoint().model_dump_json().encode(), content_type="application/json")

    await room.attempt(expires_at=LONG_AGO).handle(OnlySlot())

    assert isinstance(room.events[0], CompletedEvent)


async def test_a_job_that_a_live_worker_has_is_left_to_it_and_its_end_is_repeated(tmp_path: Path) -> None:
    gate, clock = asyncio.Event(), SteppedClock()

    async def hold(_samples: Pcm, _job_id: str) -> None:
        await gate.wait()

    first = JobsRoom(tmp_path, recogniser=MemoryRecogniser(script=hold))
    second = JobsRoom(tmp_path, store=first.store, clock=clock, worker="worker-2")
    await first.upload(speech(5))
    deadline, slot = (first.clock.now() + timedelta(hours=1)).isoformat(), OnlySlot()
    working = asyncio.create_task(first.attempt(expires_at=deadline).handle(OnlySlot()))
    await eventually(lambda: _is_claimed(first))
    clock.step = timedelta(hours=2)
    waiting = asyncio.create_task(second.attempt(expires_at=deadline).handle(slot))
    await eventually(lambda: _has_parked(slot))

    gate.set()
    await asyncio.gather(working, waiting)

    assert isinstance(first.events[0], CompletedEvent)
    assert second.completions.messages == first.completions.messages


async def _is_claimed(room: JobsRoom) -> bool:
    return "claims/job-1.json" in room.state


async def _has_parked(slot: OnlySlot) -> bool:
    return slot.parkings > 0


async def test_a_wall_clock_that_is_behind_does_not_extend_a_deadline_beyond_the_time_of_publishing(
    tmp_path: Path,
) -> None:
    clock = SteppedClock()
    deadline, published = clock.now() + timedelta(minutes=1), clock.now() + timedelta(minutes=2)
    clock.step = timedelta(days=-2)
    room = JobsRoom(tmp_path, clock=clock)

    error = await expired(room.attempt(expires_at=deadline.isoformat(), publish_time=published))

    assert 0 < (published - error.expires_at).total_seconds() < 61


async def test_what_has_ended_is_repeated_after_the_deadline(room: JobsRoom) -> None:
    await room.upload(speech(5))
    await room.attempt().handle(OnlySlot())

    await room.attempt(expires_at=LONG_AGO).handle(OnlySlot())

    assert room.completions.messages[:2] == room.completions.messages[2:]


async def test_an_expired_job_is_done_in_the_next_run_with_a_later_deadline_or_none(room: JobsRoom) -> None:
    await room.upload(speech(5))
    await expired(room.attempt(expires_at=LONG_AGO))
    later = room.clock.now() + timedelta(hours=1)

    await room.attempt(expires_at=LONG_AGO).handle(OnlySlot())
    await room.attempt(expires_at=later.isoformat(), run="1").handle(OnlySlot())

    assert (
        room.completions.messages[:2]
        == [message for message in room.completions.messages if message[1]["run"] == "0"][2:]
    )
    assert isinstance(room.events[-2], CompletedEvent)
    assert room.events[-2].run == 1


async def test_an_operator_replays_an_expired_job_without_its_deadline(room: JobsRoom) -> None:
    await room.upload(speech(5))
    await expired(room.attempt(expires_at=LONG_AGO))
    letter = parse_dead_letter(room.dead_letters.messages[0][0])
    assert letter.original.data is not None

    changed = edited(letter.original.data, (Edit.parse("expires_at=null"),))
    await room.attempt(data=changed, run="1", attributes={"replay_of": letter.dead_letter_id}).handle(OnlySlot())

    assert isinstance(room.events[-2], CompletedEvent)
