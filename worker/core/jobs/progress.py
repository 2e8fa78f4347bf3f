"""Progress events: the newest state of a job, at most one in ten seconds."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from schemas.codes import EventType, Method
from schemas.events import ProgressEvent
from worker.core.jobs.phases import Routed
from worker.core.jobs.reporting import Subject, stored
from worker.core.jobs.transcription import Progress
from worker.core.tasks import together
from worker.errors import MessageRefused, Undiagnosed
from worker.ports import Clock, Topic

SECONDS_BETWEEN_EVENTS = 10.0

log = structlog.get_logger(__name__)


class ProgressReporter:
    """Publishes the last value passed to `update`. An event that cannot be published is dropped."""

    def __init__(self, topic: Topic, subject: Subject, phase: Routed, clock: Clock) -> None:
        self._topic, self._subject, self._phase, self._clock = topic, subject, phase, clock
        self._started_at = clock.monotonic()
        self._news = asyncio.Event()
        self._latest: Progress | None = None

    def update(self, progress: Progress) -> None:
        """Take note; returns at once. Nothing is published before the next chunk is finished."""
        if progress.chunks_done == (self._latest.chunks_done if self._latest else 0):
            return
        self._latest = progress
        self._news.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Publish for the length of the block; nothing is published after it."""
        async with together() as group:
            publishing = group.create_task(self._publish(), name="progress")
            yield
            publishing.cancel()

    async def _publish(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            if self._latest is not None:
                await self._say(self._latest)
            await self._clock.sleep(SECONDS_BETWEEN_EVENTS)

    async def _say(self, progress: Progress) -> None:
        event = ProgressEvent(  # its id depends on the number of finished chunks
            **self._subject.head(EventType.PROGRESS, str(progress.chunks_done), self._clock.now()),
            chunks_done=progress.chunks_done,
            chunks_total=progress.chunks_total,
            audio_seconds_done=progress.audio_seconds_done,
            method=Method(self._phase.route.method),
            eta_seconds=self._eta_seconds(progress),
        )
        message = stored(event)
        try:
            await self._topic.publish(message.data.encode(), message.attributes)
        except (Undiagnosed, MessageRefused) as exc:
            log.info("progress.dropped", reason=str(exc))

    def _eta_seconds(self, progress: Progress) -> float | None:
        expected, done = self._phase.expected_seconds, progress.audio_seconds_done
        if not expected or not done:
            return None
        elapsed = self._clock.monotonic() - self._started_at
        return max(0.0, (expected - done) * elapsed / done)
