"""The pages' source: workers by their health documents, and the state bucket where it may be read."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

from worker.adapters.web.health_document import SeenWorker
from worker.adapters.web.views import JobStory, Overview
from worker.app.page.job_reader import JobReader, is_job_id
from worker.app.page.overview import overview_of
from worker.app.page.results import JobResult, StateBucket
from worker.app.page.story import JobTraces, story_of
from worker.errors import WorkerError

SHARE_OF_TIME = 20
"""Thousands of results take a tenth of a second of CPU to add up; that is done a twentieth of the time at most."""

Workers: TypeAlias = Callable[[], Awaitable[Sequence[SeenWorker]]]
"""Asks every worker for its health document."""


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
        async with self.bucket.opened() if self.bucket else nullcontext():
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
            return overview_of(workers, None, now, f"The state bucket cannot be read: {exc}")
        if self._last is not None and time.monotonic() < self._next_at:
            return self._last
        known = None if results.problem and not found else found  # what was not read is not empty
        seen, cpu_seconds = await asyncio.to_thread(_timed_overview, workers, known, now, results.problem)
        self._last, self._next_at = seen, time.monotonic() + SHARE_OF_TIME * cpu_seconds
        return seen

    async def job(self, job_id: str) -> JobStory | str:
        """Return one job, or a sentence that says where it was looked for in vain."""
        if not is_job_id(job_id):
            return "No job has such an id: it is 1 to 128 of A-Z a-z 0-9 . _ -, the first a letter or digit."
        traces, missing = await self._traces(job_id)
        if traces.is_known:
            return story_of(traces, datetime.now(UTC))
        return (
            f"No worker that this page can reach runs it, and {missing}. "
            "A job that was submitted just now appears here as soon as a worker takes it."
        )

    async def audio(self, job_id: str) -> Path | None:
        """Return the file of the development server; None elsewhere."""
        if self.bucket is None or self.objects is None or not is_job_id(job_id):
            return None
        try:
            return await JobReader(bucket=self.bucket, objects=self.objects).audio_file(job_id)
        except WorkerError:
            return None

    # one job

    async def _traces(self, job_id: str) -> tuple[JobTraces, str]:
        """Return what is known of the job, and why the state bucket adds nothing where it does not."""
        facts: dict[str, Any] = {"job_id": job_id}
        missing = "this page reads no state bucket"
        for worker in await self.workers():
            for job in worker.health.jobs.running if worker.health else ():
                if job.job_id == job_id and worker.health:
                    facts |= {"running": job, "worker": worker.health.worker}
            for ended in worker.health.last_jobs if worker.health else ():
                if ended.job_id == job_id:
                    facts["ended"] = ended
        if self.bucket is not None:
            try:
                facts |= await JobReader(bucket=self.bucket, objects=self.objects).read(job_id)
                missing = "it has left no result in the state bucket, which keeps results for 90 days"
            except WorkerError as exc:
                missing = f"the state bucket cannot be read: {exc}"
        return JobTraces(**facts), missing


def _timed_overview(
    workers: Sequence[SeenWorker], results: Sequence[JobResult] | None, now: datetime, problem: str
) -> tuple[Overview, float]:
    """Return the overview and the CPU seconds that it took. Runs in a thread: /health is answered meanwhile."""
    began = time.thread_time()
    seen = overview_of(workers, results, now, problem)
    return seen, time.thread_time() - began
