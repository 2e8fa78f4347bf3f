"""The pages' source: workers by their health documents, and the state bucket where it may be read."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import TypeAdapter, ValidationError

from schemas.events import CompletedEvent
from schemas.job import Id
from schemas.state import Checkpoint, ClaimRecord, ResultMarker
from schemas.uris import GcsUri
from worker.adapters.gcs import open_object_store
from worker.adapters.web.views import JobStory, Overview, Transcript
from worker.app.page.overview import SeenWorker, overview_of
from worker.app.page.results import JobResult, Results
from worker.app.page.story import JobTraces, story_of
from worker.app.page.transcript import read_transcript
from worker.core.costs.report import events_in
from worker.core.jobs.state.files import StateFiles
from worker.errors import WorkerError
from worker.ports import ObjectFacts, ObjectRef, ObjectStore

MOST_CHECKPOINTS = 500
SHARE_OF_TIME = 20
"""Thousands of results take a tenth of a second of CPU to add up; that is done a twentieth of the time at most."""

Workers: TypeAlias = Callable[[], Awaitable[Sequence[SeenWorker]]]
"""Asks every worker for its health document."""


@dataclass(kw_only=True)
class StateBucket:
    """The state bucket, opened when it is needed first. Belongs to one event loop."""

    project: str
    name: str
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    _results: Results | None = None
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Close on leaving what was opened in between."""
        async with self._stack:
            yield

    async def results(self) -> Results:
        """Return the results. Raises `StorageServiceError` where no client can be made."""
        async with self._opening:
            if self._results is None:
                store = await self._stack.enter_async_context(open_object_store(project=self.project))
                self._results = Results(store=store.impatient(), bucket=self.name)
            return self._results


@dataclass(kw_only=True)
class WorkersPage:
    """A `worker.adapters.web.pages.PageSource`.

    `bucket` is None where no bucket may be read. `objects` is the folder that holds the objects of the development
    servers: only there transcripts and audio are shown.
    """

    workers: Workers
    bucket: StateBucket | None = None
    objects: Path | None = None
    _last: Overview | None = None
    _next_at: float = 0.0

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Hold the connection to the bucket."""
        if self.bucket is None:
            yield
            return
        async with self.bucket.opened():
            yield

    async def overview(self) -> Overview:
        """Return the first page as of now."""
        workers = await self.workers()
        now = datetime.now(UTC)
        if self.bucket is None:
            return overview_of(workers, None, now)
        try:
            results = await self.bucket.results()
            found = await results.newest()
        except WorkerError as exc:
            return overview_of(workers, (), now, f"The state bucket cannot be read: {exc}")
        if self._last is not None and time.monotonic() < self._next_at:
            return self._last
        seen, cpu_seconds = await asyncio.to_thread(_timed_overview, workers, found, now, results.problem)
        self._last, self._next_at = seen, time.monotonic() + SHARE_OF_TIME * cpu_seconds
        return seen

    async def job(self, job_id: str) -> JobStory | None:
        """Return one job; None where none of this id is known."""
        if not _is_id(job_id):
            return None
        traces = await self._traces(job_id)
        return story_of(traces, datetime.now(UTC)) if traces.is_known else None

    async def audio(self, job_id: str) -> Path | None:
        """Return the file of the development server; None elsewhere."""
        if self.bucket is None or self.objects is None or not _is_id(job_id):
            return None
        try:
            result = await self._result(job_id)
        except WorkerError:
            return None
        return self._audio_file(result.ended) if result and isinstance(result.ended, CompletedEvent) else None

    # one job

    async def _traces(self, job_id: str) -> JobTraces:
        facts: dict[str, Any] = {"job_id": job_id}
        for worker in await self.workers():
            for job in worker.health.jobs.running if worker.health else ():
                if job.job_id == job_id and worker.health:
                    facts |= {"running": job, "worker": worker.health.worker}
            for ended in worker.health.last_jobs if worker.health else ():
                if ended.job_id == job_id:
                    facts["ended"] = ended
        if self.bucket is None:
            return JobTraces(**facts)
        try:
            return JobTraces(**facts, **await self._from_bucket(job_id))
        except WorkerError:
            return JobTraces(**facts)

    async def _from_bucket(self, job_id: str) -> Mapping[str, Any]:
        files = await self._files()
        result, claim = await asyncio.gather(self._result(job_id), files.load(files.claim(job_id), ClaimRecord))
        found: dict[str, Any] = {"result": result, "claim": claim.content}
        if result is None or result.marker.outcome == "failed":
            found["checkpoints"] = await _checkpoints(files, await files.checkpoints(job_id))
        if result is not None and self.objects is not None and isinstance(result.ended, CompletedEvent):
            found["transcript"] = await self._transcript(files.store, job_id, result.ended)
        return found

    async def _result(self, job_id: str) -> JobResult | None:
        files = await self._files()
        marker = (await files.load(files.result(job_id), ResultMarker)).content
        return JobResult(marker=marker, events=events_in(marker)) if marker is not None else None

    async def _files(self) -> StateFiles:
        if self.bucket is None:
            raise AssertionError("asked for files without a bucket")
        results = await self.bucket.results()
        return StateFiles(store=results.store, bucket=results.bucket)

    async def _transcript(self, store: ObjectStore, job_id: str, ended: CompletedEvent) -> Transcript | None:
        uri = GcsUri.parse(ended.artefacts.transcript.uri)
        data, _ = await store.read(ObjectRef(uri.bucket, uri.name))
        has_audio = self._audio_file(ended) is not None
        return read_transcript(json.loads(data), audio_src=f"/jobs/{job_id}/audio" if has_audio else "")

    def _audio_file(self, ended: CompletedEvent) -> Path | None:
        uri = (ended.job.metadata or {}).get("audio_uri")
        if self.objects is None or not isinstance(uri, str) or not uri.startswith("gs://"):
            return None
        path = (self.objects / uri.removeprefix("gs://")).resolve()
        return path if path.is_relative_to(self.objects.resolve()) and path.is_file() else None


def _timed_overview(
    workers: Sequence[SeenWorker], results: Sequence[JobResult], now: datetime, problem: str
) -> tuple[Overview, float]:
    """Return the overview and the CPU seconds that it took. Runs in a thread: /health is answered meanwhile."""
    began = time.thread_time()
    seen = overview_of(workers, results, now, problem)
    return seen, time.thread_time() - began


def _is_id(text: str) -> bool:
    """Return True for a job id; anything else must not become a part of an object's name."""
    try:
        TypeAdapter(Id).validate_python(text)
    except ValidationError:
        return False
    return True


async def _checkpoints(files: StateFiles, standing: Sequence[ObjectFacts]) -> Sequence[tuple[Checkpoint, datetime]]:
    listed = sorted(standing, key=lambda facts: facts.ref.name)[:MOST_CHECKPOINTS]
    found = await asyncio.gather(*(files.load(facts.ref, Checkpoint) for facts in listed))
    return [
        (stored.content.without_windows(), facts.created_at)
        for facts, stored in zip(listed, found, strict=True)
        if stored.content is not None
    ]
