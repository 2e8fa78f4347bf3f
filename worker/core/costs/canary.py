"""The judge of a canary: is the new revision, or group of videos, as good as the old one? Pure.

Each criterion is decided at 95 % confidence, one-sided, or not at all: too few jobs decide nothing.

- success, fallback: shares of jobs and of chunks. Pass where the share of the new side is certainly within the promise
  (99 %, 5 %), or certainly no more than one point worse than the old side's. Fail where it is certainly outside of the
  promise and certainly worse than the old side's. Bounds: Wilson's for a share, Newcombe's for a difference.
- speed, cost: per completed job, audio seconds a second of work and dollars an audio hour. Pass where the mean is
  certainly no more than a tenth worse than the old side's, fail where it certainly is. Bounds: Welch's, on logarithms
  for speed.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import NormalDist, fmean, variance
from typing import Literal

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
    """The figures of one cost event; None where an older worker did not write them."""

    event_id: str
    occurred_at: datetime
    completed: bool
    audio_seconds: float
    usd: float
    revision: str
    rollout_group: str | None
    processing_seconds: float | None
    chunks: int | None
    chunks_fallback: int | None


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


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The verdict of one criterion, with the figures and sample sizes of both sides."""

    criterion: CriterionName
    verdict: Verdict
    old: float | None
    new: float | None
    old_sample: int
    new_sample: int


def compare(old: Sequence[JobCost], new: Sequence[JobCost]) -> tuple[Judgement, ...]:
    """Compare the jobs of both sides. An event that came twice counts once."""
    old, new = _distinct(old), _distinct(new)
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
    good = criterion == "success"
    return Judgement(
        criterion=criterion,
        verdict=verdict,
        old=_shown(old, good=good),
        new=_shown(new, good=good),
        old_sample=old.of,
        new_sample=new.of,
    )


def _shown(share: Share, *, good: bool) -> float | None:
    if not share.of:
        return None
    return 1 - share.value if good else share.value


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
    return Judgement(
        criterion=criterion,
        verdict=verdict,
        old=fmean(old) if old else None,
        new=fmean(new) if new else None,
        old_sample=len(old),
        new_sample=len(new),
    )


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


def _distinct(jobs: Iterable[JobCost]) -> list[JobCost]:
    return list({job.event_id: job for job in jobs}.values())


def _failed(jobs: Sequence[JobCost]) -> Share:
    return Share(bad=sum(1 for job in jobs if not job.completed), of=len(jobs))


def _fallen_back(jobs: Sequence[JobCost]) -> Share:
    told = [job for job in jobs if job.chunks is not None]
    return Share(bad=sum(job.chunks_fallback or 0 for job in told), of=sum(job.chunks or 0 for job in told))


def _speeds(jobs: Sequence[JobCost]) -> list[float]:
    done = [job for job in jobs if job.completed and job.audio_seconds > 0 and (job.processing_seconds or 0) > 0]
    return [job.audio_seconds / (job.processing_seconds or 1) for job in done]


def _prices(jobs: Sequence[JobCost]) -> list[float]:
    return [job.usd * SECONDS_PER_HOUR / job.audio_seconds for job in jobs if job.completed and job.audio_seconds > 0]
