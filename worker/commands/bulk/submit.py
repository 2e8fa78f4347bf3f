"""`submit --from FILE` and `submit gs://bucket/prefix/*`.

Jobs are published in batches, at a bounded rate; each batch is noted in the journal once Pub/Sub has it.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from worker.client import own_subscription
from worker.client.connections import publisher_client
from worker.commands.bulk.journal import Journal, journal_of, open_journal, place_of
from worker.commands.bulk.rows import BadRow, BucketRows, BulkJob, Row, VideoIdFrom, is_valid_bucket, job_of, rows_of
from worker.commands.bulk.until_done import follow
from worker.commands.console import (
    EXIT_FAILED,
    EXIT_USAGE,
    ProgressView,
    fail,
    load_settings,
    note,
    problem,
    progress,
    say,
    say_json,
)
from worker.commands.prerequisites import demand
from worker.settings import CloudSettings
from worker.telemetry import configure_logging

if TYPE_CHECKING:
    from google.cloud.pubsub_v1 import PublisherClient

BLOCK_BYTES = 1 << 20
MOST_SHOWN = 50
"""Bad rows that are printed; `--json` has all of them."""
RATE = re.compile(r"(\d+(?:\.\d+)?)(?:/(s|min|h))?")
SECONDS_OF = {"s": 1, "min": 60, "h": 3600}
AT_ONCE = 500
BATCHES_A_SECOND = 4
"""At a bounded rate batches are a quarter of a second's jobs, so that the rate is even."""
CONFIRMED_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class BulkPlan:
    """The source of the jobs and the manner of their submission."""

    file: Path | None
    pattern: str
    """Address of many objects, where there is no file."""
    defaults: Mapping[str, Any]
    rate: str | None
    journal: Path | None
    video_id_from: VideoIdFrom
    repeats: bool
    is_dry: bool
    waits: bool
    as_json: bool
    timeout_seconds: float

    @property
    def journal_path(self) -> Path:
        """The journal: beside the file, or in this folder for a bucket."""
        return self.journal or journal_of(str(self.file or self.pattern))


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


def submit_many(plan: BulkPlan) -> None:
    """Submit the jobs of the plan. Exit 1 where a row is bad, or with `waits` where a job failed."""
    cloud, pace = load_settings().cloud, per_second(plan.rate)
    source = _source(plan, cloud)
    demand(cloud, pubsub=not plan.is_dry, storage=plan.file is None or plan.waits)
    configure_logging("console", "warning")
    rows = _begun(plan, source)  # before a journal is made for a source that cannot be read
    with open_journal(plan.journal_path, place_of(cloud), as_copy=plan.is_dry) as journal, ExitStack() as stack:
        topic, subscription = cloud.completion_topic, ""
        if plan.waits and not plan.is_dry:
            own = own_subscription(project_id=cloud.project_id, topic=topic)
            subscription = stack.enter_context(own)
        counts = _publish(plan, cloud, source, rows, journal, pace)
        _remark(source, counts)
        is_fine = not counts.bad
        if subscription:
            is_fine &= follow(journal, cloud, subscription, timeout_seconds=plan.timeout_seconds, as_json=plan.as_json)
    if not is_fine:
        raise SystemExit(EXIT_FAILED)


def per_second(rate: str | None) -> float | None:
    """Read 50, 50/s, 600/min or 1000/h; anything else ends the command."""
    if rate is None:
        return None
    found = RATE.fullmatch(rate.replace(" ", ""))
    if found is None or not float(found[1]):
        fail(f"--rate {rate}: write a number of jobs such as 50/s, 600/min or 1000/h", EXIT_USAGE)
    return float(found[1]) / SECONDS_OF[found[2] or "s"]


def _source(plan: BulkPlan, cloud: CloudSettings) -> "BucketRows | FileRows":
    if plan.file is not None:
        return FileRows(plan.file)
    if not is_valid_bucket(plan.pattern):
        fail(f"{plan.pattern}: must have the form gs://bucket/folder/ or gs://bucket/folder/*", EXIT_USAGE)
    return BucketRows(pattern=plan.pattern, video_id_from=plan.video_id_from, project=cloud.project_id)


class FileRows:
    """Rows of a file."""

    def __init__(self, path: Path) -> None:
        self.path, self._lines = path, 0

    def __iter__(self) -> Iterator[Row | BadRow]:
        if self.path.is_file():
            with self.path.open("rb") as file:
                self._lines = sum(block.count(b"\n") for block in iter(lambda: file.read(BLOCK_BYTES), b""))
        return rows_of(self.path)

    def share(self, row: int) -> float | None:
        """Return the share of the file before the row; None where the file cannot be read twice."""
        return min(1.0, row / self._lines) if self._lines else None


def _begun(plan: BulkPlan, source: "BucketRows | FileRows") -> Iterator[Row | BadRow]:
    """Return the rows after a look at the first one; a source without any ends the command."""
    rows: Iterator[Row | BadRow] = iter(source)
    if (first := next(rows, None)) is not None:
        return chain([first], rows)
    if isinstance(source, BucketRows):
        above, star, _ = plan.pattern.partition("*")
        wider = f"; {above.rpartition('/')[0]}/ takes everything below it, in folders too" if star else ""
        fail(f"{plan.pattern}: no audio is there; {source.seen:,} other objects match{'' if source.seen else wider}")
    return fail(f"{plan.file} holds no job")


def _publish(
    plan: BulkPlan,
    cloud: CloudSettings,
    source: "BucketRows | FileRows",
    rows: Iterator[Row | BadRow],
    journal: Journal,
    pace: float | None,
) -> RowCounts:
    counts, began = RowCounts(), time.monotonic()
    topic = f"projects/{cloud.project_id}/topics/{cloud.jobs_topic}"
    with ExitStack() as stack:
        shown = stack.enter_context(progress(as_json=plan.as_json))
        publish = None if plan.is_dry else publisher_of(stack.enter_context(publisher_client(None)), topic)
        submission = Submission(
            journal=journal,
            publish=publish,
            per_second=None if plan.is_dry else pace,
            repeats=plan.repeats,
            defaults=plan.defaults,
        )
        is_whole = False
        try:
            for outcome in submission.run(rows, counts):
                _show(plan, outcome, counts, shown)
                shown(_numbers(plan, counts), source.share(outcome.row) if isinstance(source, FileRows) else None)
            is_whole = True
        finally:
            if counts.rows and not is_whole:
                note(f"stopped after {_numbers(plan, counts)}; the same command again goes on from there")
    _sum_up(plan, counts, time.monotonic() - began)
    return counts


def _show(plan: BulkPlan, outcome: RowOutcome, counts: RowCounts, shown: ProgressView) -> None:
    if plan.as_json:
        say_json({name: value for name, value in asdict(outcome).items() if value})
    elif outcome.status == "bad" and counts.bad <= MOST_SHOWN:
        with shown.aside():
            problem(f"{outcome.name or f'row {outcome.row}'}: {'; '.join(outcome.faults)}")
            if counts.bad == MOST_SHOWN:
                note("further bad rows are only counted; --json prints every one")


def _numbers(plan: BulkPlan, counts: RowCounts) -> str:
    done = "valid" if plan.is_dry else "submitted"
    return f"{counts.submitted:,} {done}, {counts.known:,} already there, {counts.bad:,} bad"


def _remark(source: "BucketRows | FileRows", counts: RowCounts) -> None:
    if isinstance(source, BucketRows) and source.skipped:
        left_out = ", ".join(f"{count:,} {ending}" for ending, count in source.skipped.most_common())
        note(f"left out, since they are no audio: {left_out}")
    if counts.ignored:
        names = ", ".join(f"{name} ({count:,} rows)" for name, count in counts.ignored.most_common(MOST_SHOWN))
        note(f"the worker will ignore these fields: {names}")


def _sum_up(plan: BulkPlan, counts: RowCounts, seconds: float) -> None:
    if plan.as_json:
        facts = {"submitted": counts.submitted, "known": counts.known, "bad": counts.bad, "seconds": round(seconds, 3)}
        say_json({"summary": {**facts, "dry_run": plan.is_dry}})
        return
    say(f"{_numbers(plan, counts)}, in {seconds:.1f} s")
    if plan.is_dry:
        say("dry run: nothing was published")
        return
    if counts.known:
        say(f"those already there are in {plan.journal_path}; --again publishes them all the same")
    if not plan.waits:
        say(f"their ends: klipstream-worker watch --until-done {plan.journal_path}")


def publisher_of(client: "PublisherClient", topic: str) -> "Callable[[BulkJob], Future[str]]":
    """Return the function that hands a job to Pub/Sub's client."""

    def publish(job: BulkJob) -> "Future[str]":
        future: Future[str] = client.publish(topic, job.data, **job.attributes)
        return future

    return publish
