"""The pages of one worker's health port, and of a fleet: their data from health documents and the state bucket."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import httpx

from worker.adapters.web.health_document import SeenWorker, read_health
from worker.adapters.web.http_server import Pages, Upload, is_loopback
from worker.adapters.web.views import JobStory, Overview
from worker.app.page.bucket import JobReader, JobResult, StateBucket, is_job_id
from worker.app.page.overview import overview_of
from worker.app.page.story import JobTraces, story_of
from worker.app.status import Identity
from worker.errors import WorkerError
from worker.settings import CloudSettings

ANSWER_SECONDS = 2.0
MOST_BYTES = 4 << 20
SHARE_OF_TIME = 20
"""Adding up thousands of results takes a tenth of a second of CPU: it is done a twentieth of the time at most."""
Workers: TypeAlias = Callable[[], Awaitable[Sequence[SeenWorker]]]
"""Asks every worker for its health document."""


def worker_pages(health: Callable[[], bytes], identity: Identity, host: str, cloud: CloudSettings | None) -> Pages:
    """Return the pages of this worker. Where others can reach `host` they hold the health document alone."""
    only_local = is_loopback(host)

    async def workers() -> Sequence[SeenWorker]:
        return [SeenWorker(url="", health=read_health(json.loads(health())), problem="no condition yet")]

    bucket = state_bucket(cloud) if cloud is not None and only_local else None
    return Pages(
        source=WorkersPage(workers=workers, bucket=bucket),
        version=identity.versions.get("klipstream-worker", ""),
        only_local=only_local,
    )


def fleet_pages(
    urls: Sequence[str],
    cloud: CloudSettings,
    *,
    objects: Path | None = None,
    upload: Upload | None = None,
    is_starting: Callable[[], bool] = lambda: False,
) -> Pages:
    """Return the pages of the workers at `urls`, for this machine alone; `is_starting` excuses a lack of answers."""

    async def workers() -> Sequence[SeenWorker]:
        async with httpx.AsyncClient(timeout=ANSWER_SECONDS, trust_env=False) as client:
            seen = await asyncio.gather(*(_ask(client, url) for url in urls))
            return [replace(worker, is_starting=worker.health is None and is_starting()) for worker in seen]

    return Pages(
        source=WorkersPage(workers=workers, bucket=state_bucket(cloud), objects=objects),
        version=version("klipstream-worker"),
        only_local=True,
        upload=upload,
    )


def state_bucket(cloud: CloudSettings) -> StateBucket | None:
    """Return the state bucket; None where no setting names one."""
    return StateBucket(project=cloud.project_id, name=cloud.state_bucket) if cloud.state_bucket else None


async def _ask(client: httpx.AsyncClient, url: str) -> SeenWorker:
    try:
        answer = await client.get(f"{url.rstrip('/')}/health")
        document = json.loads(answer.content[:MOST_BYTES])
    except httpx.HTTPError as exc:
        return SeenWorker(url=url, health=None, problem=str(exc) or "no answer")
    except (httpx.InvalidURL, ValueError):
        return SeenWorker(url=url, health=None, problem="not a worker's answer")
    health = read_health(document)
    return SeenWorker(url=url, health=health, problem="" if health else "not a worker's answer")


@dataclass(kw_only=True)
class WorkersPage:
    """A `worker.adapters.web.http_server.PageSource`. None as `bucket`: none is read; `objects` as in `JobReader`."""

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
        """Return the first page as of now; an older one while adding up takes long."""
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
    """Return the overview and its CPU seconds. Runs in a thread: /health is answered meanwhile."""
    began = time.thread_time()
    seen = overview_of(workers, results, now, problem)
    return seen, time.thread_time() - began
