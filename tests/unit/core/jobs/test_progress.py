"""Progress events: at most one in ten seconds, and none that a job could fail by."""

from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from schemas.job import JobEcho, TranscriptionJob
from schemas.state import NO_WASTE
from tests.support.clock import FakeClock
from tests.support.jobs.harness import RecordingTopic
from worker.core.jobs.phases import Arrival, Routed
from worker.core.jobs.progress import ProgressReporter
from worker.core.jobs.reporting import Subject
from worker.core.jobs.routing import Route
from worker.core.jobs.transcription import Progress
from worker.errors import MessageRefused, QueueNotFound, QueueServiceError


class RefusingTopic(RecordingTopic):
    """Raises at each message, which it remembers."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    async def publish(self, data: bytes, attributes: Mapping[str, str], ordering_key: str = "") -> str:
        await super().publish(data, attributes, ordering_key)
        raise self._error


def reporter(topic: RecordingTopic, clock: FakeClock) -> ProgressReporter:
    at = datetime(2026, 11, 22, tzinfo=UTC)
    job = TranscriptionJob.model_validate({"job_id": "j", "video_id": "v", "audio_uri": "gs://audio/a.mp3"})
    phase = Routed(
        receipt=Arrival(worker="w", started_at=at, began=0.0, queued_seconds=0.0),
        job=job,
        deliveries=1,
        waste=NO_WASTE,
        route=Route(method="parakeet", reason="a test"),
        expected_seconds=100.0,
        chunk_seconds=20.0,
    )
    return ProgressReporter(topic, Subject(echo=JobEcho(), identity="i", run=0), phase, clock)


def chunks(done: int) -> Progress:
    return Progress(chunks_done=done, chunks_total=5, audio_seconds_done=20.0 * done)


@pytest.mark.parametrize(
    "error",
    [
        QueueServiceError("publish to", "completions", "503"),
        QueueNotFound("completions"),
        MessageRefused("completions", "the attribute is too long"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_an_event_that_cannot_be_published_is_dropped_and_the_next_one_tried(error: Exception) -> None:
    clock, topic = FakeClock(), RefusingTopic(error)
    progress = reporter(topic, clock)

    async with progress.running():
        progress.update(chunks(1))
        await clock.rest()
        progress.update(chunks(2))
        await clock.advance(10)

    assert len(topic.messages) == 2


async def test_the_newest_state_is_published_once_in_ten_seconds() -> None:
    clock, topic = FakeClock(), RecordingTopic()
    progress = reporter(topic, clock)

    async with progress.running():
        for done in range(1, 5):
            progress.update(chunks(done))
            await clock.advance(1)
        await clock.advance(10)

    assert [b'"chunks_done":1' in topic.messages[0][0], b'"chunks_done":4' in topic.messages[1][0]] == [True, True]
    assert len(topic.messages) == 2
