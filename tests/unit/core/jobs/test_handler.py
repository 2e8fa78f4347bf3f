import asyncio
import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schemas.codes import ErrorCode, Method
from schemas.dead_letter import parse_dead_letter
from schemas.events import CompletedEvent, CostEvent, FailedEvent
from tests.support.jobs.harness import JobsRoom, OnlySlot, never, speech
from tests.support.wait import eventually
from worker.adapters.memory.recogniser import MemoryRecogniser
from worker.errors import (
    AttemptsExhausted,
    AudioForbidden,
    AudioNotFound,
    AudioTooLarge,
    AudioUndecodable,
    DeepgramNotConfigured,
    EngineFailure,
    InvalidJob,
    JobIdConflict,
    ParakeetDisabled,
    Undiagnosed,
    UnsupportedSchemaVersion,
)
from worker.ports import ObjectFacts, ObjectRef, Pcm


@pytest.fixture
def room(tmp_path: Path) -> JobsRoom:
    return JobsRoom(tmp_path)


def failing(*windows: int, error: Callable[[], Exception]) -> Callable[[Pcm, str], object]:
    """A recogniser's script that fails the windows of these numbers, counted from 0 over all jobs."""
    seen = iter(range(10_000))

    async def script(_samples: Pcm, _job_id: str) -> None:
        if next(seen) in windows:
            raise error()

    return script


async def test_a_job_leaves_artefacts_a_completed_event_a_cost_event_and_a_marker(room: JobsRoom) -> None:
    await room.upload(speech(65))

    await room.attempt(outputs=["vtt"], metadata={"k": 1}).handle(OnlySlot())

    completed, cost = room.events
    assert isinstance(completed, CompletedEvent)
    assert isinstance(cost, CostEvent)
    told = completed.transcription_metadata
    assert completed.job.metadata == {"k": 1}
    assert told.words_count == len(
        list(csv.DictReader(io.StringIO(room.artefacts["vod/audio_vod_words.csv"].decode())))
    )
    assert (told.method_used, told.routing_reason, told.chunks_resumed) == (Method.PARAKEET, "cost_optimization", 0)
    assert told.audio_duration_seconds == 65
    assert sorted(room.artefacts) == [
        "vod/audio_vod.vtt",
        "vod/audio_vod_paragraphs.csv",
        "vod/audio_vod_transcript.json",
        "vod/audio_vod_words.csv",
    ]
    assert completed.artefacts.vtt is not None
    assert completed.artefacts.srt is None
    assert cost.usd_total == told.cost_estimate_usd > 0
    assert room.state == ["results/job-1.json"]
    assert room.files == []


async def test_a_second_delivery_publishes_the_same_bytes_without_transcribing(tmp_path: Path) -> None:
    heard = []

    async def count(_samples: Pcm, job_id: str) -> None:
        heard.append(job_id)

    room = JobsRoom(tmp_path, recogniser=MemoryRecogniser(script=count))
    await room.upload(speech(30))
    await room.attempt().handle(OnlySlot())
    windows = len(heard)

    await room.attempt(force_method="deepgram", priority=9).handle(OnlySlot())

    assert len(heard) == windows > 0
    assert room.completions.messages[:2] == room.completions.messages[2:]


async def test_events_do_not_wait_until_checkpoints_are_cleared(
    room: JobsRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    await room.upload(speech(65))
    told_before = []
    delete = room.store.delete

    async def look(ref: ObjectRef, **options: Any) -> None:
        told_before.append((ref.name.split("/")[0], len(room.completions.messages)))
        await delete(ref, **options)

    monkeypatch.setattr(room.store, "delete", look)

    await room.attempt().handle(OnlySlot())

    assert ("checkpoints", 2) in told_before
    assert ("checkpoints", 0) not in told_before


async def test_a_short_job_asks_the_buckets_thirteen_times(room: JobsRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    await room.upload(speech(15))
    asked: list[tuple[str, str]] = []

    def counted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        async def counting(where: ObjectRef | ObjectFacts | str, *arguments: Any, **options: Any) -> Any:
            ref = where.ref if isinstance(where, ObjectFacts) else where
            asked.append((name, "checkpoints" if isinstance(ref, str) else ref.name.split("/")[0]))
            return await call(where, *arguments, **options)

        return counting

    for name in ("stat", "download", "read", "write", "delete", "list"):
        monkeypatch.setattr(room.store, name, counted(name, getattr(room.store, name)))

    await room.attempt().handle(OnlySlot())

    assert asked == [
        ("write", "claims"),
        ("read", "results"),
        ("stat", "a.pcm"),
        ("download", "a.pcm"),
        ("list", "checkpoints"),
        ("write", "checkpoints"),
        ("write", "claims"),
        *[("write", "vod")] * 3,
        ("write", "results"),
        ("delete", "checkpoints"),
        ("delete", "claims"),
    ]


async def test_two_workers_render_the_same_bytes(tmp_path: Path) -> None:
    rooms = [JobsRoom(tmp_path, worker="one"), JobsRoom(tmp_path, worker="two")]
    moment = rooms[0].clock.now()
    for room in rooms:
        room.store._now = lambda: moment
        await room.upload(speech(130))

    for room in rooms:
        await room.attempt().handle(OnlySlot())

    assert rooms[0].artefacts == rooms[1].artefacts


async def test_a_failed_attempt_is_resumed_from_its_checkpoints(tmp_path: Path) -> None:
    script = failing(4, error=lambda: EngineFailure("parakeet", "it broke"))
    room = JobsRoom(tmp_path, recogniser=MemoryRecogniser(script=script), chunks_in_flight=1)
    await room.upload(speech(130))
    first = room.attempt()
    with pytest.raises(EngineFailure):
        await first.handle(OnlySlot())
    failures = await first.record_failure(RuntimeError("it broke"))

    await room.attempt().handle(OnlySlot())

    assert failures == 1
    assert room.events[0].transcription_metadata.chunks_resumed == 4
    assert room.events[0].transcription_metadata.deliveries == 2
    assert room.state == ["results/job-1.json"]


async def test_a_job_that_is_given_up_has_a_dead_letter_a_failed_and_a_cost_event(tmp_path: Path) -> None:
    script = failing(4, error=lambda: EngineFailure("parakeet", "it broke"))
    room = JobsRoom(tmp_path, recogniser=MemoryRecogniser(script=script), chunks_in_flight=1)
    await room.upload(speech(130))
    attempt = room.attempt(metadata={"k": 1})
    with pytest.raises(EngineFailure) as caught:
        await attempt.handle(OnlySlot())

    await attempt.give_up(caught.value, 5)

    failed, cost = room.events
    letter = parse_dead_letter(room.dead_letters.messages[0][0])
    assert isinstance(failed, FailedEvent)
    assert isinstance(cost, CostEvent)
    assert failed.error.error_code is ErrorCode.TRANSCRIPTION_SERVICE_ERROR
    assert failed.error.is_retryable
    assert failed.error.support_reference == letter.dead_letter_id
    assert cost.usd_total > 0
    assert failed.job.metadata == {"k": 1}
    assert (letter.attempts, letter.code) == (5, ErrorCode.TRANSCRIPTION_SERVICE_ERROR)
    assert "results/job-1.json" in room.state
    assert not [name for name in room.state if name.startswith("claims/")]


async def test_a_redelivery_of_a_failed_job_says_the_same_again_and_a_replay_overrides_it(tmp_path: Path) -> None:
    script = failing(0, error=lambda: EngineFailure("parakeet", "it broke"))
    room = JobsRoom(tmp_path, recogniser=MemoryRecogniser(script=script))
    await room.upload(speech(30))
    attempt = room.attempt()
    with pytest.raises(EngineFailure) as caught:
        await attempt.handle(OnlySlot())
    await attempt.give_up(caught.value, 1)
    said = list(room.completions.messages)

    await room.attempt().handle(OnlySlot())
    repeated = room.completions.messages[len(said) :]
    await room.attempt(run="1").handle(OnlySlot())

    assert repeated == said
    assert len(room.dead_letters.messages) == 2
    assert isinstance(room.events[-2], CompletedEvent)
    assert room.events[-2].run == 1


@pytest.mark.parametrize(
    ("message", "error", "code"),
    [
        ({"data": b"{"}, InvalidJob, ErrorCode.INVALID_JOB),
        ({"data": b"\xff\xfe"}, InvalidJob, ErrorCode.INVALID_JOB),
        ({"data": b"[]"}, InvalidJob, ErrorCode.INVALID_JOB),
        ({"video_id": "../x"}, InvalidJob, ErrorCode.INVALID_JOB),
        ({"duration_seconds": "long"}, InvalidJob, ErrorCode.INVALID_JOB),
        ({"run": "first"}, InvalidJob, ErrorCode.INVALID_JOB),
        ({"output_uri_prefix": "gs://elsewhere/x/"}, InvalidJob, ErrorCode.INVALID_JOB),
        ({"schema_version": 2}, UnsupportedSchemaVersion, ErrorCode.UNSUPPORTED_SCHEMA_VERSION),
        ({"audio_uri": "gs://private/a.pcm"}, AudioForbidden, ErrorCode.AUDIO_FORBIDDEN),
        ({"audio_uri": "gs://audio/none.pcm"}, AudioNotFound, ErrorCode.AUDIO_NOT_FOUND),
        ({"audio_generation": 99}, AudioNotFound, ErrorCode.AUDIO_NOT_FOUND),
        ({"audio_uri": "gs://audio/empty.pcm"}, AudioUndecodable, ErrorCode.AUDIO_UNDECODABLE),
        ({"force_method": "deepgram"}, DeepgramNotConfigured, ErrorCode.TRANSCRIPTION_FALLBACK_FAILED),
        (
            {"force_method": "parakeet", "transcription_config": {"enable_gpu": False}},
            ParakeetDisabled,
            ErrorCode.GPU_NOT_AVAILABLE,
        ),
    ],
)
async def test_what_cannot_be_done_is_refused_and_buried_with_its_code(
    room: JobsRoom, message: dict[str, object], error: type[Exception], code: ErrorCode
) -> None:
    await room.upload(speech(5))
    await room.store.write(ObjectRef("audio", "empty.pcm"), b"", content_type="audio/x-memory")
    attempt = room.attempt(**message)

    with pytest.raises((error, Undiagnosed)) as caught:
        await attempt.handle(OnlySlot())
    verdict = caught.value.verdict() if isinstance(caught.value, Undiagnosed) else caught.value
    await attempt.give_up(verdict, 1)

    failed, cost = room.events
    assert isinstance(verdict, error)
    assert failed.error.error_code is code
    assert parse_dead_letter(room.dead_letters.messages[0][0]).code is code
    assert cost.usd_total == 0
    assert not [name for name in room.state if name.startswith("claims/")]
    assert room.files == []


async def test_an_object_above_the_limit_is_not_downloaded(room: JobsRoom) -> None:
    room.jobs.tools.intake._max_bytes = 10
    await room.upload(speech(1))

    with pytest.raises(AudioTooLarge) as caught:
        await room.attempt().handle(OnlySlot())

    assert caught.value.limit_bytes == 10


async def test_another_request_under_the_same_id_is_a_conflict_and_leaves_the_first_alone(room: JobsRoom) -> None:
    await room.upload(speech(5))
    await room.attempt().handle(OnlySlot())
    marker = await room.store.read(ObjectRef("state", "results/job-1.json"))
    attempt = room.attempt(video_id="other")

    with pytest.raises(JobIdConflict) as caught:
        await attempt.handle(OnlySlot())
    await attempt.give_up(caught.value, 1)

    assert room.events[-2].error.error_code is ErrorCode.JOB_ID_CONFLICT
    assert room.events[-2].event_id != room.events[0].event_id
    assert await room.store.read(ObjectRef("state", "results/job-1.json")) == marker


async def test_a_message_that_is_no_job_keeps_what_could_be_read_of_it(room: JobsRoom) -> None:
    attempt = room.attempt(audio_uri="nowhere", metadata={"k": 1})
    with pytest.raises(InvalidJob) as caught:
        await attempt.handle(OnlySlot())

    await attempt.give_up(caught.value, 1)

    failed = room.events[0]
    assert (failed.job.job_id, failed.job.metadata) == ("job-1", {"k": 1})
    assert failed.error.violations == caught.value.violations
    assert any(violation.startswith("audio_uri") for violation in failed.error.violations)


async def test_silence_completes_and_says_so(room: JobsRoom) -> None:
    await room.upload(speech(30) * 0)

    await room.attempt().handle(OnlySlot())

    completed, cost = room.events
    assert completed.flags.no_speech
    assert not completed.flags.shorter_than_analysis_window
    assert room.artefacts["vod/audio_vod_words.csv"] == b"start_time,end_time,word\r\n"
    assert (cost.usd_total, cost.savings_percent) == (0, 100)


async def test_speech_that_ends_before_59_seconds_completes_and_says_so(room: JobsRoom) -> None:
    await room.upload(speech(40))

    await room.attempt().handle(OnlySlot())

    assert room.events[0].flags.shorter_than_analysis_window
    assert not room.events[0].flags.no_speech


async def test_a_second_worker_parks_and_repeats_the_first_workers_events(tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def hold(_samples: Pcm, _job_id: str) -> None:
        await gate.wait()

    first = JobsRoom(tmp_path, recogniser=MemoryRecogniser(script=hold))
    second = JobsRoom(tmp_path, store=first.store, worker="worker-2")
    await first.upload(speech(30))
    slot = OnlySlot()
    working = asyncio.create_task(first.attempt().handle(OnlySlot()))
    await eventually(lambda: is_claimed(first))
    waiting = asyncio.create_task(second.attempt().handle(slot))
    await eventually(lambda: has_parked(slot))

    gate.set()
    await asyncio.gather(working, waiting)

    assert first.completions.messages == second.completions.messages
    assert slot.parkings == 1


async def is_claimed(room: JobsRoom) -> bool:
    return "claims/job-1.json" in room.state


async def has_parked(slot: OnlySlot) -> bool:
    return slot.parkings > 0


async def test_a_cancelled_job_releases_its_claim_and_leaves_no_file(tmp_path: Path) -> None:
    room = JobsRoom(tmp_path, recogniser=MemoryRecogniser(script=never))
    await room.upload(speech(30))
    working = asyncio.create_task(room.attempt().handle(OnlySlot()))
    await eventually(lambda: is_claimed(room))

    working.cancel()
    await asyncio.wait([working])
    room.jobs = JobsRoom(tmp_path, store=room.store, worker="worker-2").jobs
    await room.attempt().handle(OnlySlot())

    assert working.cancelled()
    assert room.files == []
    assert "results/job-1.json" in room.state


async def test_a_job_whose_workers_keep_dying_is_exhausted(tmp_path: Path) -> None:
    room = JobsRoom(tmp_path, max_crashes=0)
    await room.upload(speech(5))
    attempt = room.attempt()

    with pytest.raises(AttemptsExhausted) as caught:
        await attempt.handle(OnlySlot())
    await attempt.give_up(caught.value, 1)

    assert room.events[0].error.error_code is ErrorCode.ATTEMPTS_EXHAUSTED


async def test_progress_is_published_where_it_is_asked_for(tmp_path: Path) -> None:
    room = JobsRoom(tmp_path, progress_events=True)
    await room.upload(speech(130))

    await room.attempt().handle(OnlySlot())

    kinds = [event.event_type.value for event in room.events]
    assert kinds[-2:] == ["transcription.completed", "transcription.cost"]
    assert set(kinds[:-2]) <= {"transcription.progress"}
