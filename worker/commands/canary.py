"""`canary`: compare two revisions, or the two groups of videos of a roll-out, by their cost events."""

import json
import re
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from schemas.events import CostEvent, EventUnreadable, parse_event
from schemas.text import plain_json
from worker.commands.console import EXIT_USAGE, cell, fail, say
from worker.commands.costs import parse_span
from worker.commands.tables import Field, FittedTable, print_fitted
from worker.core.costs.canary import JobCost, Judgement, compare, overall

By = Literal["revision", "group"]
EXIT_NOT_ENOUGH = 3
NEWER_GROUP, OLDER_GROUP = "parakeet", "deepgram"
TABLE = re.compile(r"[A-Za-z][\w:.-]*\.\w+\.\w+")
COLUMNS = (
    "event_id, occurred_at, outcome, audio_seconds, usd_total, revision, rollout_group, processing_time_seconds, "
    "chunks_total, chunks_fallback"
)
MOST_ROWS = 1_000_000
BQ_SECONDS = 300
COLOURS = {"pass": "green", "fail": "red", "not enough yet": "yellow"}


def canary(
    by: By, old: str | None, new: str | None, since: str, table: str | None, file: Path | None, *, as_json: bool
) -> None:
    """Print the verdict. Exit 1 where the new side fails, 3 where there are too few jobs yet, 2 for unusable input."""
    span = parse_span(since)
    start = datetime.now(UTC) - span
    jobs = [job for job in (_from_file(file) if file else _from_bigquery(table, span)) if job.occurred_at >= start]
    old, new = _sides(jobs, by, old, new)
    judgements = compare([job for job in jobs if _side(job, by) == old], [job for job in jobs if _side(job, by) == new])
    verdict = overall(judgements)
    if as_json:
        for one in judgements:
            print(plain_json(_row(one)))
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
    for line in path.read_bytes().splitlines():
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
        fail("--table PROJECT.DATASET.TABLE, or --file; deploy/env.sh ENVIRONMENT brings the table's names", EXIT_USAGE)
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
        fail(f"bq: {(done.stdout + done.stderr).strip().splitlines()[-1]}")
    return [_of_row(row) for row in json.loads(done.stdout or "[]")]


def _of_row(row: dict[str, Any]) -> JobCost:
    """Read a row as bq prints it: every value as text, or null."""

    def number(name: str) -> float | None:
        return None if row.get(name) is None else float(row[name])

    def count(name: str) -> int | None:
        return None if row.get(name) is None else int(row[name])

    return JobCost(
        event_id=row["event_id"],
        occurred_at=datetime.fromisoformat(row["occurred_at"]).replace(tzinfo=UTC),
        completed=row["outcome"] == "completed",
        audio_seconds=float(row["audio_seconds"]),
        usd=float(row["usd_total"]),
        revision=row.get("revision") or "",
        rollout_group=row.get("rollout_group"),
        processing_seconds=number("processing_time_seconds"),
        chunks=count("chunks_total"),
        chunks_fallback=count("chunks_fallback"),
    )


def _row(one: Judgement) -> dict[str, Any]:
    return {
        "criterion": one.criterion,
        "verdict": one.verdict,
        "old": one.old,
        "new": one.new,
        "old_sample": one.old_sample,
        "new_sample": one.new_sample,
    }


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
