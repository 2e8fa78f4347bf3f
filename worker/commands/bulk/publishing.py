"""Publishing of many jobs: in batches, at a bounded rate, each batch noted in the journal once Pub/Sub has it."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from worker.commands.bulk.journal import Journal
from worker.commands.bulk.rows import BadRow, BulkJob, Row, job_of

if TYPE_CHECKING:
    from google.cloud.pubsub_v1 import PublisherClient

AT_ONCE = 500
BATCHES_A_SECOND = 4
"""At a bounded rate batches are a quarter of a second's jobs, so that the rate is even."""
CONFIRMED_SECONDS = 60.0


@dataclass(kw_only=True)
class RowCounts:
    """The numbers of a submission."""

    submitted: int = 0
    known: int = 0
    bad: int = 0
    ignored: Counter[str] = field(default_factory=Counter)
    """Names of fields that the worker ignores, with the number of rows."""

    @property
    def rows(self) -> int:
        """All rows that were read."""
        return self.submitted + self.known + self.bad


@dataclass(frozen=True, kw_only=True)
class RowOutcome:
    """The outcome of one row."""

    row: int
    status: Literal["submitted", "known", "bad"]
    job_id: str | None = None
    faults: Sequence[str] = ()
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A journal, and the door to the topic; without one the jobs are only noted."""

    journal: Journal
    publish: "Callable[[BulkJob], Future[str]] | None"
    per_second: float | None = None
    repeats: bool = False
    """Publish also the jobs that the journal has."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def run(self, rows: Iterable[Row | BadRow], counts: RowCounts) -> Iterator[RowOutcome]:
        """Publish every row that is a job and that the journal does not have; yield what became of each row.

        Raises what publishing raises, after the confirmed jobs are in the journal; running again goes on from there.
        """
        batch: dict[str, BulkJob] = {}
        began, published = self.monotonic(), 0
        size = AT_ONCE if self.per_second is None else max(1, min(AT_ONCE, int(self.per_second / BATCHES_A_SECOND)))
        for row in rows:
            outcome = self._judge(row, batch, counts)
            if outcome is not None:
                yield outcome
            if len(batch) >= size:
                published += len(batch)
                yield from self._send(batch, counts)
                if self.per_second is not None:
                    self.sleep(max(0.0, began + published / self.per_second - self.monotonic()))
        yield from self._send(batch, counts)

    def _judge(self, row: Row | BadRow, batch: dict[str, BulkJob], counts: RowCounts) -> RowOutcome | None:
        """Put the row's job into the batch, or return why it is not published."""
        job = job_of(row, self.defaults) if isinstance(row, Row) else row
        if isinstance(job, BulkJob):
            counts.ignored.update(job.ignored)
            there = batch[job.job_id].request if job.job_id in batch else self.journal.request_of(job.job_id)
            if there == job.request and (job.job_id in batch or not self.repeats):
                counts.known += 1
                return RowOutcome(row=job.number, status="known", job_id=job.job_id)
            if not (faults := self._conflicts(job, there, batch)):
                batch[job.job_id] = job
                return None
            job = BadRow(number=job.number, faults=faults, name=job.name)
        counts.bad += 1
        return RowOutcome(row=job.number, status="bad", faults=job.faults, name=job.name)

    def _conflicts(self, job: BulkJob, there: str | None, batch: Mapping[str, BulkJob]) -> Sequence[str]:
        if there is not None and there != job.request:
            return (f"job_id: must be new (got {job.job_id!r}, which names another request of this file)",)
        if job.names_its_video:
            return ()
        same = (other.job_id for other in batch.values() if other.video_id == job.video_id)
        other = next(same, None) or self.journal.job_of_video(job.video_id, job.job_id)
        if other is None:
            return ()
        of_name = f"the name makes it {job.video_id!r}, and {other} has that"
        return (f"video_id: must be given, since {of_name} (for objects: --video-id-from)",)

    def _send(self, batch: dict[str, BulkJob], counts: RowCounts) -> Iterator[RowOutcome]:
        jobs = list(batch.values())
        batch.clear()
        if self.publish is None:
            self.journal.add(jobs)
        else:
            self._confirm([(job, self.publish(job)) for job in jobs])
        for job in jobs:
            counts.submitted += 1
            yield RowOutcome(row=job.number, status="submitted", job_id=job.job_id)

    def _confirm(self, sent: "Sequence[tuple[BulkJob, Future[str]]]") -> None:
        try:
            for _, future in sent:
                future.result(timeout=CONFIRMED_SECONDS)
        except FutureTimeout as exc:
            raise TimeoutError(f"no confirmation from Pub/Sub within {CONFIRMED_SECONDS:g} s") from exc
        finally:
            done = [job for job, future in sent if future.done() and future.exception() is None]
            self.journal.add(done)


def publisher_of(client: "PublisherClient", topic: str) -> "Callable[[BulkJob], Future[str]]":
    """Return the function that hands a job to Pub/Sub's client."""

    def publish(job: BulkJob) -> "Future[str]":
        future: Future[str] = client.publish(topic, job.data, **job.attributes)
        return future

    return publish
