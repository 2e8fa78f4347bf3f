"""`canary`: compare two revisions, or the two groups of videos of a roll-out, by their cost events."""

import re
import subprocess
from codecs import BOM_UTF8
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from schemas.events import CostEvent, EventUnreadable, parse_event
from schemas.text import plain_json
from worker.commands.console import EXIT_USAGE, cell, fail, note, say
from worker.commands.costs import parse_span
from worker.commands.tables import Field, FittedTable, print_fitted
from worker.core.costs.canary import JobCost, Judgement, compare, overall

By = Literal["revision", "group"]
EXIT_NOT_ENOUGH = 3
NEWER_GROUP, OLDER_GROUP = "parakeet", "deepgram"
TABLE = re.compile(r"[A-Za-z][\w:.-]*\.\w+\.\w+")
COLUMNS = (
    "event_id, FORMAT_TIMESTAMP('%FT%TZ', occurred_at) AS occurred_at, outcome = 'completed' AS completed, "
    "audio_seconds, usd_total AS usd, IFNULL(revision, '') AS revision, rollout_group, "
    "processing_time_seconds AS processing_seconds, chunks_total AS chunks, chunks_fallback"
)
"""The fields of `JobCost`; bq prints every value as text, or null."""
MOST_ROWS = 1_000_000
BQ_SECONDS = 300
MOST_QUOTED = 60
COLOURS = {"pass": "green", "fail": "red", "not enough yet": "yellow"}


def canary(
    by: By, old: str | None, new: str | None, since: str, table: str | None, file: Path | None, *, as_json: bool
) -> None:
    """Print the verdict. Exit 1 where the new side fails, 3 where there are too few jobs yet, 2 for unusable input."""
    span = parse_span(since)
    start = datetime.now(UTC) - span
    jobs = [job for job in (_from_file(file) if file else _from_bigquery(table, span)) if job.occurred_at >= start]
    old, new = _sides(jobs, by, old, new)
    if old == new:
        fail(f"--old and --new: must be two of them (got {old} for both)", EXIT_USAGE)
    there_are = ", ".join(sorted({side for job in jobs if (side := _side(job, by))})) or "none"
    for side in {old, new} - {_side(job, by) for job in jobs}:
        note(f"no cost event is of {side}; in that time there is: {there_are}")
    judgements = compare([job for job in jobs if _side(job, by) == old], [job for job in jobs if _side(job, by) == new])
    verdict = overall(judgements)
    if as_json:
        for one in judgements:
            print(plain_json(asdict(one)))
        print(plain_json({"old": old, "new": new, "verdict": verdict}))
    else:
        print_fitted(_table(judgements, old, new))
        say((f"{new} against {old}: {verdict}", COLOURS[verdict]))
    if verdict != "pass":
        raise SystemExit(1 if verdict == "fail" else EXIT_NOT_ENOUGH)


def _side(job: JobCost, by: By) -> str | None:
    return job.revision if by == "revision" else job.rollout_group


def _sides(jobs: Iterable[JobCost], by: By, old: str | None, new: str | None) -> tuple[str, str]:
    """Return which sides are compared: the groups, or the revision that began last and the one before it."""
    if by == "group":
        return old or OLDER_GROUP, new or NEWER_GROUP
    began: dict[str, datetime] = {}
    for job in jobs:
        if job.revision:
            began[job.revision] = min(job.occurred_at, began.get(job.revision, job.occurred_at))
    by_age = sorted(began, key=lambda name: began[name])
    new = new or next((name for name in reversed(by_age) if name != old), None)
    old = old or next((name for name in reversed(by_age) if name != new), None)
    if new is None or old is None:
        known = ", ".join(by_age) or "none"
        fail(f"two revisions with cost events are needed; in that time there is: {known}", EXIT_USAGE)
    return old, new


def _from_file(path: Path) -> list[JobCost]:
    """Read exported cost events, one a line; other events, and lines that are none, are left out."""
    found = []
    for line in path.read_bytes().removeprefix(BOM_UTF8).splitlines():
        try:
            event = parse_event(line)
        except EventUnreadable:
            continue
        if isinstance(event, CostEvent):
            found.append(_of_event(event))
    return found


def _of_event(event: CostEvent) -> JobCost:
    return JobCost(
        event_id=event.event_id,
        occurred_at=event.occurred_at,
        completed=event.outcome == "completed",
        audio_seconds=event.audio_seconds,
        usd=event.usd_total,
        revision=event.revision,
        rollout_group=event.rollout_group,
        processing_seconds=event.processing_time_seconds,
        chunks=event.chunks_total,
        chunks_fallback=event.chunks_fallback,
    )


def _from_bigquery(table: str | None, span: timedelta) -> list[JobCost]:
    """Read the costs table with `bq`, which brings the login of gcloud."""
    if table is None or not TABLE.fullmatch(table):
        got = "" if table is None else f" (got {table!r})"
        fail(f"--table PROJECT.DATASET.TABLE, or --file; deploy/env.sh ENVIRONMENT brings its names{got}", EXIT_USAGE)
    hours = max(1, round(span / timedelta(hours=1)))
    query = (
        f"SELECT {COLUMNS} FROM `{table}` "  # noqa: S608 - the name was checked
        f"WHERE occurred_at > TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL {hours} HOUR)"
    )
    command = ["bq", "query", "--quiet", "--format=json", f"--max_rows={MOST_ROWS}", "--use_legacy_sql=false", query]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=BQ_SECONDS, check=False)
    except FileNotFoundError:
        fail("bq is not installed: it comes with gcloud", EXIT_USAGE)
    except subprocess.TimeoutExpired:
        fail(f"bq did not answer within {BQ_SECONDS} s")
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines() or [f"ended with {done.returncode}"]
        fail(f"bq: {said[-1]}")
    try:
        return TypeAdapter(list[JobCost]).validate_json(done.stdout or "[]")
    except ValidationError:
        fail(f"bq: its answer is not that of a query (got {done.stdout[:MOST_QUOTED]!r})")


def _table(judgements: Iterable[Judgement], old: str, new: str) -> FittedTable:
    fields = (
        Field(name="criterion"),
        Field(name="old", right=True),
        Field(name="of", right=True),
        Field(name="new", right=True),
        Field(name="of", right=True),
        Field(name="verdict"),
    )
    rows = []
    for one in judgements:
        of = "chunks" if one.criterion == "fallback" else "jobs"
        samples = (f"{one.old_sample} {of}", f"{one.new_sample} {of}")
        values = (_figure(one, one.old), samples[0], _figure(one, one.new), samples[1])
        rows.append([cell(one.criterion), *map(cell, values), cell(one.verdict, COLOURS[one.verdict])])
    return FittedTable(title=f"{new} against {old}", fields=fields, rows=rows)


def _figure(one: Judgement, value: float | None) -> str:
    if value is None:
        return "-"
    if one.criterion == "speed":
        return f"{value:.0f} x"
    return f"${value:.4f}/h" if one.criterion == "cost" else f"{value:.2%}"
