"""A job that the subscription's policy gave up on: known facts are published, and no made-up ones."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from schemas.codes import ErrorCode, Method
from schemas.dead_letter import DeadLetter, parse_dead_letter
from schemas.events import CompletedEvent, CostEvent, FailedEvent
from schemas.ids import request_fingerprint
from schemas.job import parse_job
from tests.support.jobs.harness import JobsRoom, OnlySlot, speech
from worker.adapters.memory.recogniser import MemoryRecogniser
from worker.core.jobs.forwarded_job import adopt
from worker.errors import ClaimHeld, EngineFailure, StorageServiceError
from worker.ports import Delivery, ObjectRef, Pcm

PUBLISHED_AT = datetime(2026, 11, 22, 1, tzinfo=UTC)
GAVE_UP_AT = datetime(2026, 11, 22, 10, tzinfo=UTC)


@pytest.fixture
def room(tmp_path: Path) -> JobsRoom:
    return JobsRoom(tmp_path)


def original(data: bytes | None = None, attributes: dict[str, str] | None = None, **fields: Any) -> Delivery:
    job = {"job_id": "job-1", "video_id": "vod", "audio_uri": "gs://audio/a.pcm", **fields}
    return Delivery(
        ack_id="ack",
        message_id="m1",
        data=json.dumps(job).encode() if data is None else data,
        attributes=attributes or {},
        publish_time=PUBLISHED_AT,
    )


async def adopted(
    room: JobsRoom, delivery: Delivery, deliveries: int = 100
) -> tuple[DeadLetter, FailedEvent, CostEvent]:
    """Adopt it; its dead letter and its two events, which are all that is published."""
    await adopt(room.jobs, delivery, deliveries=deliveries, gave_up_at=GAVE_UP_AT)
    ((data, _),) = room.dead_letters.messages
    failed, cost = room.events
    assert isinstance(failed, FailedEvent)
    assert isinstance(cost, CostEvent)
    return parse_dead_letter(data), failed, cost


async def test_a_forwarded_job_gets_its_dead_letter_and_its_last_events(room: JobsRoom) -> None:
    letter, failed, cost = await adopted(room, original(metadata={"k": 1}, force_method="parakeet"))

    assert (failed.error.error_code, failed.error.support_reference) == (
        ErrorCode.ATTEMPTS_EXHAUSTED,
        letter.dead_letter_id,
    )
    assert failed.error.error_message == "the subscription gave up after 100 deliveries, without a verdict of a worker"
    assert failed.job.metadata == cost.job.metadata == {"k": 1}
    assert (letter.attempts, letter.crashes, letter.original.data) == (
        100,
        0,
        original(metadata={"k": 1}, force_method="parakeet").data,
    )
    assert room.state == ["results/job-1.json"]


async def test_its_times_are_those_of_the_original(room: JobsRoom) -> None:
    letter, failed, cost = await adopted(room, original())

    assert (letter.original.publish_time, letter.first_seen, letter.failed_at) == (
        PUBLISHED_AT,
        PUBLISHED_AT,
        GAVE_UP_AT,
    )
    assert failed.occurred_at == cost.occurred_at == GAVE_UP_AT


async def test_figures_that_were_not_measured_stay_null(room: JobsRoom) -> None:
    _, failed, cost = await adopted(room, original())

    told = failed.transcription_metadata.model_dump(exclude_defaults=True)
    assert told == {"method_requested": Method.AUTO, "deliveries": 100}
    assert (cost.usd_total, cost.audio_seconds, cost.engines, cost.baseline.usd) == (0, 0, (), 0)


async def test_a_count_that_is_not_known_is_not_made_up(room: JobsRoom) -> None:
    letter, failed, _ = await adopted(room, original(), deliveries=0)

    assert failed.transcription_metadata.deliveries is None
    assert letter.message == "the subscription gave up after deliveries it did not count, without a verdict of a worker"


async def test_what_its_checkpoints_cost_is_known(tmp_path: Path) -> None:
    async def break_late(_samples: Pcm, _job_id: str, seen: list[int] = []) -> None:  # noqa: B006 - counts the calls
        seen.append(1)
        if len(seen) > 4:
            raise EngineFailure("parakeet", "it broke")

    room = JobsRoom(tmp_path, recogniser=MemoryRecogniser(script=break_late), chunks_in_flight=1)
    await room.upload(speech(130))
    with pytest.raises(EngineFailure):
        await room.attempt().handle(OnlySlot())

    letter, failed, cost = await adopted(room, original())

    assert [engine.engine for engine in cost.engines] == ["parakeet"]
    assert cost.usd_total > 0
    assert cost.audio_seconds == pytest.approx(70, abs=10)
    assert failed.transcription_metadata.cost_estimate_usd == cost.usd_total
    assert failed.transcription_metadata.method_used == Method.PARAKEET
    assert letter.first_seen > PUBLISHED_AT


async def test_adopted_twice_it_has_the_same_messages(room: JobsRoom) -> None:
    for _ in range(2):
        await adopt(room.jobs, original(), deliveries=100, gave_up_at=GAVE_UP_AT)

    assert room.dead_letters.messages[:1] == room.dead_letters.messages[1:]
    assert room.completions.messages[:2] == room.completions.messages[2:]


async def test_a_job_that_had_ended_publishes_its_events_again_and_is_no_dead_letter(room: JobsRoom) -> None:
    await room.upload(speech(30))
    await room.attempt().handle(OnlySlot())

    await adopt(room.jobs, original(), deliveries=100, gave_up_at=GAVE_UP_AT)

    assert [type(event) for event in room.events] == [CompletedEvent, CostEvent] * 2
    assert room.completions.messages[:2] == room.completions.messages[2:]
    assert room.dead_letters.messages == []


async def test_a_replay_that_was_forwarded_is_a_failure_of_that_run(room: JobsRoom) -> None:
    await adopt(room.jobs, original(), deliveries=100, gave_up_at=GAVE_UP_AT)

    await adopt(room.jobs, original(attributes={"run": "1"}), deliveries=100, gave_up_at=GAVE_UP_AT)

    assert [event.run for event in room.events] == [0, 0, 1, 1]
    assert len({event.event_id for event in room.events}) == 4


@pytest.mark.parametrize("data", [b"no job", b"{}", b"x" * 9_000_000])
async def test_a_forwarded_message_that_is_no_job_fails_as_invalid(room: JobsRoom, data: bytes) -> None:
    letter, failed, _ = await adopted(room, original(data=data))

    assert (letter.code, letter.attempts, failed.error.error_code) == (
        ErrorCode.INVALID_JOB,
        100,
        ErrorCode.INVALID_JOB,
    )
    assert letter.original.publish_time == PUBLISHED_AT
    assert room.state == []


async def test_a_job_id_that_another_request_has_used_is_a_conflict(room: JobsRoom) -> None:
    await adopt(room.jobs, original(), deliveries=100, gave_up_at=GAVE_UP_AT)

    await adopt(room.jobs, original(language="de"), deliveries=100, gave_up_at=GAVE_UP_AT)

    assert room.events[2].error.error_code is ErrorCode.JOB_ID_CONFLICT


async def test_a_job_id_that_another_request_is_using_is_a_conflict(room: JobsRoom) -> None:
    async with room.states.claim("job-1", "another fingerprint", 0):
        _, failed, _ = await adopted(room, original())

    assert failed.error.error_code is ErrorCode.JOB_ID_CONFLICT


async def test_a_job_that_a_worker_holds_is_left_to_it(room: JobsRoom) -> None:
    job, _ = parse_job(original().data)
    async with room.states.claim("job-1", request_fingerprint(job), 0):
        with pytest.raises(ClaimHeld):
            await adopt(JobsRoom(room.folder, store=room.store).jobs, original(), deliveries=100, gave_up_at=GAVE_UP_AT)

    assert room.completions.messages == []


async def test_nothing_is_published_where_it_cannot_be_stored(room: JobsRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(ref: ObjectRef, *_: Any, **__: Any) -> None:
        raise StorageServiceError("write", ref.uri, "503")

    monkeypatch.setattr(room.store, "write", refuse)

    with pytest.raises(StorageServiceError):
        await adopt(room.jobs, original(), deliveries=100, gave_up_at=GAVE_UP_AT)

    assert room.completions.messages == room.dead_letters.messages == []
