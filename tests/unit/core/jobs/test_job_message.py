"""Reading of a delivery's bytes and attributes, and what is logged about them."""

import gc
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog

from schemas.dead_letter import parse_dead_letter
from schemas.events import CompletedEvent, FailedEvent
from tests.support.clock import SteppedClock
from tests.support.jobs.harness import JobsRoom, OnlySlot, speech
from worker.adapters.memory.audio import memory_audio
from worker.adapters.memory.recogniser import MemoryRecogniser
from worker.core.jobs.job_message import LARGE_BYTES, MOST_NAMES
from worker.errors import AudioForbidden, AudioNotFound, EngineFailure, InvalidJob, Undiagnosed
from worker.ports import ObjectRef, Pcm

INT64 = 2**63


@pytest.fixture
async def room(tmp_path: Path) -> JobsRoom:
    room = JobsRoom(tmp_path)
    await room.upload(speech(5))
    return room


async def fails(room: JobsRoom, error: type[Exception], **message: Any) -> Exception:
    attempt = room.attempt(**message)
    with pytest.raises((error, Undiagnosed)) as caught:
        await attempt.handle(OnlySlot())
    verdict = caught.value.verdict() if isinstance(caught.value, Undiagnosed) else caught.value
    assert isinstance(verdict, error)
    await attempt.give_up(verdict, 1)
    return verdict


@pytest.mark.parametrize("run", ["", "-1", "1.0", "one", "٣", "²", "0x1", " 1", "1" * 19, "9" * 1024])
async def test_a_run_that_is_no_number_of_64_bits_makes_the_message_invalid(room: JobsRoom, run: str) -> None:
    error = await fails(room, InvalidJob, run=run)

    assert isinstance(error, InvalidJob)
    assert error.violations[0].startswith("attribute run: must be a whole number")
    assert len(error.violations[0]) < 300
    assert all(event.run == 0 for event in room.events)
    assert room.state == []


@pytest.mark.parametrize("run", ["1", "7", "9" * 18])
async def test_a_publisher_cannot_begin_with_a_later_run(room: JobsRoom, run: str) -> None:
    error = await fails(room, InvalidJob, run=run)

    assert "must be at most 0" in str(error)
    assert all(event.run < INT64 for event in room.events)
    assert room.state == []


async def test_a_run_beyond_the_next_is_refused_and_leaves_the_job_alone(room: JobsRoom) -> None:
    await fails(room, AudioNotFound, audio_uri="gs://audio/late.pcm")
    await fails(room, InvalidJob, audio_uri="gs://audio/late.pcm", run="2")
    await room.upload(speech(5), "late.pcm")

    await room.attempt(audio_uri="gs://audio/late.pcm", run="1").handle(OnlySlot())

    assert isinstance(room.events[-2], CompletedEvent)
    assert len({event.event_id for event in room.events}) == len(room.events)


async def test_a_run_beyond_the_next_of_a_completed_job_is_refused_and_its_result_stays(room: JobsRoom) -> None:
    await room.attempt().handle(OnlySlot())
    await fails(room, InvalidJob, run="5")

    await room.attempt().handle(OnlySlot())

    assert room.completions.messages[:2] == room.completions.messages[-2:]


async def test_the_event_of_a_refused_message_does_not_pass_for_one_of_the_job_whose_id_it_holds(
    room: JobsRoom,
) -> None:
    await fails(room, InvalidJob, run="x")
    await fails(room, AudioNotFound, audio_uri="gs://audio/a.pcm", audio_generation=99, job_id="job-1")

    refused, _, failed, _ = room.events
    assert isinstance(refused, FailedEvent)
    assert refused.event_id != failed.event_id


async def test_a_message_that_became_a_job_by_an_edit_of_the_console_may_be_of_any_run(room: JobsRoom) -> None:
    await fails(room, InvalidJob, audio_uri="nowhere")
    replay = {"replay_of": parse_dead_letter(room.dead_letters.messages[0][0]).dead_letter_id}
    await fails(room, InvalidJob, audio_uri="nowhere at all", run="1", attributes=replay)

    await room.attempt(run="2", attributes=replay).handle(OnlySlot())

    assert isinstance(room.events[-2], CompletedEvent)
    assert room.events[-2].run == 2


async def test_a_job_that_failed_for_a_moment_is_done_in_the_run_that_its_publisher_asks_for(tmp_path: Path) -> None:
    broken = [True]

    async def script(_samples: Pcm, _job_id: str) -> None:
        if broken:
            raise EngineFailure("parakeet", "it broke")

    room = JobsRoom(tmp_path, recogniser=MemoryRecogniser(script=script))
    await room.upload(speech(5))
    await fails(room, EngineFailure)
    failed = room.events[0]
    broken.clear()

    await room.attempt().handle(OnlySlot())
    repeated = len(room.completions.messages)
    await room.attempt(run=str(failed.run + 1)).handle(OnlySlot())

    assert failed.error.is_retryable
    assert repeated == 4
    assert isinstance(room.events[-2], CompletedEvent)
    assert room.events[-2].run == 1
    assert room.events[-2].event_id != failed.event_id


async def test_a_job_of_a_forbidden_bucket_is_done_in_a_replay_once_the_bucket_is_allowed(room: JobsRoom) -> None:
    await fails(room, AudioForbidden, audio_uri="gs://private/a.pcm")
    await room.store.write(ObjectRef("private", "a.pcm"), memory_audio(speech(5)), content_type="audio/x-memory")
    room.jobs.tools.intake._input_buckets = frozenset({"private"})

    await room.attempt(audio_uri="gs://private/a.pcm", run="1", attributes={"replay_of": "it"}).handle(OnlySlot())

    assert isinstance(room.events[-2], CompletedEvent)
    assert room.events[-2].run == 1


async def test_a_completed_job_whose_bucket_is_no_longer_allowed_keeps_its_result(room: JobsRoom) -> None:
    await room.attempt().handle(OnlySlot())
    before = await room.store.read(ObjectRef("state", "results/job-1.json"))
    room.jobs.tools.intake._input_buckets = frozenset({"private"})

    await fails(room, AudioForbidden, run="9")

    assert await room.store.read(ObjectRef("state", "results/job-1.json")) == before


async def test_a_log_line_names_some_unknown_fields_and_counts_all(room: JobsRoom) -> None:
    names = {f"field-{number:05d}-{'x' * 500}": 1 for number in range(1000)}

    with structlog.testing.capture_logs() as lines:
        await room.attempt(**names).handle(OnlySlot())

    (line,) = (line for line in lines if line["event"] == "job.unknown_fields")
    assert line["count"] == 1000
    assert len(line["fields"]) == MOST_NAMES
    assert len(json.dumps(line)) < 4_000


async def test_a_message_is_read_once_whatever_becomes_of_its_job(room: JobsRoom) -> None:
    with structlog.testing.capture_logs() as lines:
        await fails(room, AudioNotFound, audio_uri="gs://audio/none.pcm", speaker_hints=2)

    assert [line["event"] for line in lines].count("job.unknown_fields") == 1


async def test_reading_a_large_message_leaves_the_garbage_collector_as_it_was(room: JobsRoom) -> None:
    await room.attempt(extra="x" * LARGE_BYTES).handle(OnlySlot())
    on = gc.isenabled()
    gc.disable()
    try:
        await room.attempt(extra="x" * LARGE_BYTES).handle(OnlySlot())
        off = gc.isenabled()
    finally:
        gc.enable()

    assert (on, off) == (True, False)


@pytest.mark.parametrize("hours", [-2, 3])
async def test_no_duration_follows_a_wall_clock_that_is_set(tmp_path: Path, hours: int) -> None:
    clock = SteppedClock()

    async def set_it(_samples: Pcm, _job_id: str) -> None:
        clock.step = timedelta(hours=hours)

    room = JobsRoom(tmp_path, recogniser=MemoryRecogniser(script=set_it), clock=clock, progress_events=True)
    await room.upload(speech(30))

    await room.attempt(publish_time=clock.now() + timedelta(hours=1)).handle(OnlySlot())

    (completed,) = (event for event in room.events if isinstance(event, CompletedEvent))
    told = completed.transcription_metadata
    assert 0 <= told.processing_time_seconds < 3600
    assert told.queue_time_seconds == 0
    assert 0 <= room.board.ended[-1].seconds < 3600
    assert room.board.totals.processing_seconds == pytest.approx(told.processing_time_seconds, abs=0.001)


async def test_a_failure_under_a_clock_that_was_set_back_has_its_real_duration(tmp_path: Path) -> None:
    clock = SteppedClock()

    async def set_it_and_fail(_samples: Pcm, _job_id: str) -> None:
        clock.step = timedelta(hours=-2)
        raise EngineFailure("parakeet", "it broke")

    room = JobsRoom(tmp_path, recogniser=MemoryRecogniser(script=set_it_and_fail), clock=clock)
    await room.upload(speech(5))

    await fails(room, EngineFailure)

    seconds = room.events[0].transcription_metadata.processing_time_seconds
    assert seconds is not None
    assert 0 <= seconds < 3600
