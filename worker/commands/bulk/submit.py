"""`submit --from FILE` and `submit gs://bucket/prefix/*`."""

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from schemas.text import plain_json
from worker.client import own_subscription
from worker.client.connections import publisher_client
from worker.commands.bulk.bucket import BucketRows, VideoIdFrom, is_valid_bucket
from worker.commands.bulk.journal import Journal, journal_of, open_journal, place_of
from worker.commands.bulk.progress import ProgressView, progress
from worker.commands.bulk.publishing import RowCounts, RowOutcome, Submission, publisher_of
from worker.commands.bulk.rows import BadRow, Row, rows_of
from worker.commands.bulk.until_done import follow
from worker.commands.console import EXIT_FAILED, EXIT_USAGE, fail, load_settings, note, problem, say
from worker.commands.prerequisites import demand
from worker.settings import CloudSettings
from worker.telemetry import configure_logging

BLOCK_BYTES = 1 << 20
MOST_SHOWN = 50
"""Bad rows that are printed; `--json` has all of them."""
RATE = re.compile(r"(\d+(?:\.\d+)?)(?:/(s|min|h))?")
SECONDS_OF = {"s": 1, "min": 60, "h": 3600}


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
        print(plain_json({name: value for name, value in asdict(outcome).items() if value}))
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
        print(plain_json({"summary": {**facts, "dry_run": plan.is_dry}}))
        return
    say(f"{_numbers(plan, counts)}, in {seconds:.1f} s")
    if plan.is_dry:
        say("dry run: nothing was published")
        return
    if counts.known:
        say(f"those already there are in {plan.journal_path}; --again publishes them all the same")
    if not plan.waits:
        say(f"their ends: klipstream-worker watch --until-done {plan.journal_path}")
