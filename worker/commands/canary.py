"""`canary`: the new revision, or group of videos of a roll-out, judged beside the old one by their cost events.

Each criterion is decided at 95 % confidence, one-sided, or not at all: too few jobs decide nothing.

- success, fallback: shares of jobs and of chunks. Pass where the share of the new side is certainly within the promise
  (99 %, 5 %), or certainly no more than one point worse than the old side's. Fail where it is certainly outside of the
  promise and certainly worse than the old side's. Bounds: Wilson's for a share, Newcombe's for a difference.
- speed, cost: per completed job, audio seconds a second of work and dollars an audio hour. Pass where the mean is
  certainly no more than a tenth worse than the old side's, fail where it certainly is. Bounds: Welch's, on logarithms
  for speed.
"""

import math
import re
import subprocess
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import NormalDist, fmean, variance
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from schemas.events import CostEvent
from worker.commands.console import EXIT_USAGE, cell, fail, note, say, say_json
from worker.commands.costs import parse_span
from worker.commands.tables import Field, FittedTable, print_fitted
from worker.core.costs.report import event_in

By = Literal["revision", "group"]
EXIT_NOT_ENOUGH = 3
NEWER_GROUP, OLDER_GROUP = "parakeet", "deepgram"
TABLE = re.compile(r"[A-Za-z][\w:.-]*\.\w+\.\w+")
COLUMNS = (
    "event_id, FORMAT_TIMESTAMP('%FT%TZ', occurred_at) AS occurred_at, outcome, audio_seconds, usd_total, "
    "IFNULL(revision, '') AS revision, rollout_group, processing_time_seconds, chunks_total, chunks_fallback"
)
"""The fields of `JobCost`; bq prints every value as text, or null."""
MOST_ROWS = 1_000_000
BQ_SECONDS = 300
MOST_QUOTED = 60
COLOURS = {"pass": "green", "fail": "red", "not enough yet": "yellow"}
Verdict = Literal["pass", "fail", "not enough yet"]
CriterionName = Literal["success", "fallback", "speed", "cost"]
Z = NormalDist().inv_cdf(0.95)
FEWEST_JOBS = 10
"""Jobs of each side, below which means of speed and cost are not compared."""
MOST_FAILED = 0.01
MOST_FALLEN_BACK = 0.05
WORSE_BY = 0.01
SLOWER_OR_DEARER_BY = 0.1
SECONDS_PER_HOUR = 3600


@dataclass(frozen=True, kw_only=True)
class JobCost:
    """Fields of one cost event, under its names; None where an older worker did not write them."""

    event_id: str
    occurred_at: datetime
    outcome: str
    audio_seconds: float
    usd_total: float
    revision: str
    rollout_group: str | None
    processing_time_seconds: float | None
    chunks_total: int | None
    chunks_fallback: int | None

    @property
    def completed(self) -> bool:
        """The job was not given up."""
        return self.outcome == "completed"


@dataclass(frozen=True, kw_only=True)
class Share:
    """A count of bad ones and of all."""

    bad: int
    of: int

    @property
    def value(self) -> float:
        """The share, 0 of nothing."""
        return self.bad / self.of if self.of else 0.0

    def bounds(self) -> tuple[float, float]:
        """Return Wilson's lower and upper bound; 0 and 1 of nothing."""
        if not self.of:
            return 0.0, 1.0
        centre = (self.value + Z * Z / (2 * self.of)) / (1 + Z * Z / self.of)
        spread = self.value * (1 - self.value) / self.of + Z * Z / (4 * self.of * self.of)
        half = Z * math.sqrt(spread) / (1 + Z * Z / self.of)
        return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True)
class Judgement:
    """The verdict of one criterion, with the figures and sample sizes of both sides."""

    criterion: CriterionName
    verdict: Verdict
    old: float | None
    new: float | None
    old_sample: int
    new_sample: int


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
            say_json(asdict(one))
        say_json({"old": old, "new": new, "verdict": verdict})
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
    events = map(event_in, path.read_bytes().removeprefix(BOM_UTF8).splitlines())
    costs = [event for event in events if isinstance(event, CostEvent)]
    return [JobCost(**{name: getattr(cost, name) for name in JobCost.__dataclass_fields__}) for cost in costs]


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
        values = (_figure(one, one.old), f"{one.old_sample} {of}", _figure(one, one.new), f"{one.new_sample} {of}")
        rows.append((one.criterion, *values, cell(one.verdict, COLOURS[one.verdict])))
    return FittedTable(title=f"{new} against {old}", fields=fields, rows=rows)


def _figure(one: Judgement, value: float | None) -> str:
    if value is None:
        return "-"
    if one.criterion == "speed":
        return f"{value:.0f} x"
    return f"${value:.4f}/h" if one.criterion == "cost" else f"{value:.2%}"


# the judge: pure functions


def compare(old: Sequence[JobCost], new: Sequence[JobCost]) -> tuple[Judgement, ...]:
    """Compare the jobs of both sides. An event that came twice counts once."""
    old, new = ([*{job.event_id: job for job in side}.values()] for side in (old, new))
    return (
        _share("success", _failed(old), _failed(new), MOST_FAILED),
        _share("fallback", _fallen_back(old), _fallen_back(new), MOST_FALLEN_BACK),
        _mean("speed", _speeds(old), _speeds(new), _slower),
        _mean("cost", _prices(old), _prices(new), _dearer),
    )


def overall(judgements: Iterable[Judgement]) -> Verdict:
    """Fail where one criterion fails, pass where all pass."""
    verdicts = {one.verdict for one in judgements}
    if "fail" in verdicts:
        return "fail"
    return "pass" if verdicts == {"pass"} else "not enough yet"


def difference(old: Share, new: Share) -> tuple[float, float]:
    """Return Newcombe's lower and upper bound of new - old."""
    (old_low, old_high), (new_low, new_high) = old.bounds(), new.bounds()
    apart = new.value - old.value
    below = math.hypot(new.value - new_low, old_high - old.value)
    above = math.hypot(new_high - new.value, old.value - old_low)
    return apart - below, apart + above


def _share(criterion: CriterionName, old: Share, new: Share, promise: float) -> Judgement:
    low, high = new.bounds()
    worse_at_least, worse_at_most = difference(old, new)
    verdict: Verdict = "not enough yet"
    if new.of and (high <= promise or (old.of and worse_at_most <= WORSE_BY)):
        verdict = "pass"
    elif new.of and low > promise and (not old.of or worse_at_least > 0):
        verdict = "fail"

    def shown(share: Share) -> float | None:
        return None if not share.of else 1 - share.value if criterion == "success" else share.value

    return Judgement(criterion, verdict, shown(old), shown(new), old.of, new.of)


def _mean(
    criterion: CriterionName,
    old: Sequence[float],
    new: Sequence[float],
    worse: Callable[[Sequence[float], Sequence[float]], tuple[float, float]],
) -> Judgement:
    verdict: Verdict = "not enough yet"
    if min(len(old), len(new)) >= FEWEST_JOBS:
        at_least, at_most = worse(old, new)
        if at_most <= SLOWER_OR_DEARER_BY:
            verdict = "pass"
        elif at_least > SLOWER_OR_DEARER_BY:
            verdict = "fail"
    old_mean, new_mean = (fmean(side) if side else None for side in (old, new))
    return Judgement(criterion, verdict, old_mean, new_mean, len(old), len(new))


def _slower(old: Sequence[float], new: Sequence[float]) -> tuple[float, float]:
    """Return by what part the new side is slower, at least and at most; negative where it is faster."""
    logs = [[math.log(speed) for speed in side] for side in (old, new)]
    low, high = _welch(*logs)
    return 1 - math.exp(high), 1 - math.exp(low)


def _dearer(old: Sequence[float], new: Sequence[float]) -> tuple[float, float]:
    """Return by what part the new side is dearer, at least and at most; negative where it is cheaper."""
    low, high = _welch(old, new)
    base = fmean(old)
    if base <= 0:
        return (math.inf, math.inf) if low > 0 else (0.0, 0.0)
    return low / base, high / base


def _welch(old: Sequence[float], new: Sequence[float]) -> tuple[float, float]:
    """Return the bounds of the difference of the means, new - old, with the normal law in place of Student's."""
    apart = fmean(new) - fmean(old)
    error = Z * math.sqrt(variance(new) / len(new) + variance(old) / len(old))
    return apart - error, apart + error


def _failed(jobs: Sequence[JobCost]) -> Share:
    return Share(bad=sum(not job.completed for job in jobs), of=len(jobs))


def _fallen_back(jobs: Sequence[JobCost]) -> Share:
    told = [job for job in jobs if job.chunks_total is not None]
    return Share(bad=sum(job.chunks_fallback or 0 for job in told), of=sum(job.chunks_total or 0 for job in told))


def _speeds(jobs: Sequence[JobCost]) -> list[float]:
    done = [(job.audio_seconds, job.processing_time_seconds or 0) for job in jobs if job.completed]
    return [audio / seconds for audio, seconds in done if audio > 0 and seconds > 0]


def _prices(jobs: Sequence[JobCost]) -> list[float]:
    done = [job for job in jobs if job.completed and job.audio_seconds > 0]
    return [job.usd_total * SECONDS_PER_HOUR / job.audio_seconds for job in done]
