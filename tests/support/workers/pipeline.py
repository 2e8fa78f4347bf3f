"""The pipeline's side of a worker under test: uploads audio, publishes jobs, reads what comes of them."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.dead_letter import DeadLetter, parse_dead_letter
from schemas.events import CompletedEvent, CostEvent, Event, FailedEvent, parse_event
from tests.support.queues.pubsub_server import Server, connected, let_it_pass
from tests.support.services.gcs import store_at
from tests.support.wait import eventually
from worker.adapters.gcs import GcsObjectStore
from worker.embedded.local_cloud import (
    AUDIO_BUCKET,
    COMPLETION_SUBSCRIPTION,
    DEAD_LETTER_TOPIC,
    JOBS_SUBSCRIPTION,
    JOBS_TOPIC,
    STATE_BUCKET,
    LocalCloud,
)
from worker.ports import ObjectRef


@dataclass(frozen=True, kw_only=True)
class Ending:
    """Terminal event of a job and its cost event."""

    event: CompletedEvent | FailedEvent
    cost: CostEvent

    @property
    def completed(self) -> CompletedEvent:
        """The terminal event of a job that should have been completed."""
        assert isinstance(self.event, CompletedEvent), self.event
        return self.event

    @property
    def failed(self) -> FailedEvent:
        """The terminal event of a job that should have failed."""
        assert isinstance(self.event, FailedEvent), self.event
        return self.event


class Pipeline:
    """Everything that a publisher and reader does, and looks at what the worker keeps and leaves."""

    def __init__(self, server: Server, store: GcsObjectStore) -> None:
        self._server, self._store = server, store
        self.events: list[Event] = []
        """Every event read so far, duplicates too."""

    async def upload(self, content: bytes | Path, name: str = "audio") -> str:
        """Store an object; its URI."""
        ref = ObjectRef(AUDIO_BUCKET, name)
        if isinstance(content, Path):
            await self._store.upload_file(content, ref, "application/octet-stream")
        else:
            await self._store.write(ref, content, content_type="application/octet-stream")
        return ref.uri

    async def submit(self, audio_uri: str, job_id: str = "job-1", **fields: Any) -> None:
        """Publish a job."""
        job = {"job_id": job_id, "video_id": f"vod-{job_id}", "audio_uri": audio_uri, **fields}
        await self.publish(json.dumps(job).encode())

    async def publish(self, data: bytes, **attributes: str) -> None:
        """Publish any message to the topic of jobs."""
        await self._server.publish(self._path("topics", JOBS_TOPIC), data, **attributes)

    async def ending(self, job_id: str | None = "job-1", seconds: float = 60.0) -> Ending:
        """Read events until that job's terminal and cost events are there."""
        await self.endings(1, job_id, seconds)
        told = [event for event in self.events if event.job.job_id == job_id]
        return Ending(
            event=next(event for event in told if isinstance(event, CompletedEvent | FailedEvent)),
            cost=next(event for event in told if isinstance(event, CostEvent)),
        )

    async def endings(self, count: int, job_id: str | None = "job-1", seconds: float = 60.0) -> None:
        """Read events until the job has ended the given number of times."""

        async def enough() -> bool:
            await self._read()
            told = [event for event in self.events if event.job.job_id == job_id]
            ends = [event for event in told if isinstance(event, CompletedEvent | FailedEvent)]
            return min(len(ends), sum(isinstance(event, CostEvent) for event in told)) >= count

        await eventually(enough, seconds)

    async def dead_letters(self) -> list[DeadLetter]:
        """Return every envelope on the dead-letter subscription."""
        received = await self._server.pull_now(self._path("subscriptions", DEAD_LETTER_TOPIC))
        return [parse_dead_letter(one.message.data) for one in received]

    async def unsettled(self) -> list[bytes]:
        """Messages that would be delivered again now. To be asked when no worker holds any."""
        received = await self._server.pull_now(self._path("subscriptions", JOBS_SUBSCRIPTION))
        return [one.message.data for one in received]

    async def state(self, prefix: str = "") -> list[str]:
        """Names of what the workers keep, in order."""
        return [facts.ref.name for facts in await self._store.list(STATE_BUCKET, prefix)]

    async def forget(self, job_id: str) -> None:
        """Remove what the workers know of a job and its events read so far, as if it had never been."""
        for name in await self.state():
            if job_id in name:
                await self._store.delete(ObjectRef(STATE_BUCKET, name))
        self.events = [event for event in self.events if event.job.job_id != job_id]

    async def artefacts(self, event: CompletedEvent) -> dict[str, bytes]:
        """The artefacts that the event names: their content by file name."""
        made = event.artefacts
        files = [stored for stored in (made.words, made.paragraphs, made.transcript, made.srt, made.vtt) if stored]
        return {stored.uri.rsplit("/", 1)[1]: await self._content(stored.uri) for stored in files}

    async def _content(self, uri: str) -> bytes:
        bucket, name = uri.removeprefix("gs://").split("/", 1)
        return (await self._store.read(ObjectRef(bucket, name)))[0]

    async def _read(self) -> None:
        subscription = self._path("subscriptions", COMPLETION_SUBSCRIPTION)
        received = await self._server.pull_now(subscription)
        if received:
            self.events += [parse_event(one.message.data) for one in received]
            await self._server.ack(subscription, *(one.ack_id for one in received))

    def _path(self, collection: str, name: str) -> str:
        return self._server.name(collection, name)


@asynccontextmanager
async def pipeline_of(cloud: LocalCloud, project: str) -> AsyncIterator[Pipeline]:
    """The pipeline's clients on these servers."""
    async with connected(cloud.pubsub_target, let_it_pass) as server, store_at(cloud.storage_url) as store:
        server.project = project
        yield Pipeline(server, store)
