"""Promises to the users, judged by the results of a set of jobs. Pure functions."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from schemas.codes import Method
from schemas.events import CompletedEvent, CostEvent, Event, FailedEvent

SECONDS_PER_HOUR, SECONDS_PER_MINUTE, PERCENT = 3600.0, 60.0, 100.0

SPEED_RATIO = 40.0
USD_PER_AUDIO_HOUR = 0.027
SUCCESS_PERCENT = 99.0
SAVINGS_PERCENT = 90.0
FALLBACK_PERCENT = 5.0
MINUTES_BY_AUDIO_HOURS = {0.5: 2.0, 2.0: 6.0, 4.0: 12.0}
# An MP3 is some hundredths of a second longer than what went into it.
LENGTH_TOLERANCE_SECONDS = 1.0

# Other forced methods choose to pay and to wait for Deepgram: speed and money are not judged by such jobs.
JUDGED_METHODS = frozenset({Method.AUTO, Method.PARAKEET})

COMPARISONS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


@dataclass(kw_only=True)
class Trial:
    """A job of the run and its events so far."""

    job_id: str
    audio_uri: str
    method: Method
    event: CompletedEvent | FailedEvent | None = None
    cost: CostEvent | None = None

    def hear(self, event: Event) -> None:
        """Keep what says how it ended."""
        if isinstance(event, CompletedEvent | FailedEvent):
            self.event = event
        elif isinstance(event, CostEvent):
            self.cost = event

    @property
    def has_ended(self) -> bool:
        """Both of its last events are there."""
        return self.event is not None and self.cost is not None

    @property
    def completed(self) -> CompletedEvent | None:
        """Its event, where it went well."""
        return self.event if isinstance(self.event, CompletedEvent) else None


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """One promise: `value` is None if no job of the run has the figure."""

    name: str
    value: float | None
    comparison: Literal["<", "<=", ">", ">="]
    limit: float
    unit: str

    @property
    def passed(self) -> bool | None:
        """True if the promise was kept; None if there is no figure."""
        return None if self.value is None else bool(COMPARISONS[self.comparison](self.value, self.limit))

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**vars(self), "passed": self.passed}


def judged(trials: Sequence[Trial]) -> tuple[Criterion, ...]:
    """Every promise."""
    completed = [job.completed for job in trials if job.completed]
    return (
        Criterion(
            name="success",
            value=_ratio(PERCENT * len(completed), len(trials)),
            comparison=">",
            limit=SUCCESS_PERCENT,
            unit="% of jobs",
        ),
        *_speed_and_fallback([event for event in completed if _method(event) in JUDGED_METHODS]),
        *_money([job.cost for job in trials if job.cost and job.completed and job.method in JUDGED_METHODS]),
        *(_in_time(completed, hours) for hours in MINUTES_BY_AUDIO_HOURS),
    )


def has_passed(criteria: Sequence[Criterion]) -> bool:
    """Return True if every promise with a figure was kept, and at least one has a figure."""
    told = [criterion.passed for criterion in criteria if criterion.passed is not None]
    return bool(told) and all(told)


def _method(event: CompletedEvent) -> Method | str:
    return event.transcription_metadata.method_requested


def _speed_and_fallback(events: Sequence[CompletedEvent]) -> tuple[Criterion, Criterion]:
    told = [event.transcription_metadata for event in events]
    audio, busy = sum(one.audio_duration_seconds for one in told), sum(one.processing_time_seconds for one in told)
    fallen, chunks = sum(one.chunks_fallback for one in told), sum(one.chunks_total for one in told)
    return (
        Criterion(name="speed", value=_ratio(audio, busy), comparison=">=", limit=SPEED_RATIO, unit="x real time"),
        Criterion(
            name="fallback",
            value=_ratio(PERCENT * fallen, chunks),
            comparison="<",
            limit=FALLBACK_PERCENT,
            unit="% of chunks",
        ),
    )


def _money(costs: Sequence[CostEvent]) -> tuple[Criterion, Criterion]:
    spent, baseline = sum(cost.usd_total for cost in costs), sum(cost.baseline.usd for cost in costs)
    hours = sum(cost.audio_seconds for cost in costs) / SECONDS_PER_HOUR
    return (
        Criterion(
            name="cost",
            value=_ratio(spent, hours),
            comparison="<=",
            limit=USD_PER_AUDIO_HOUR,
            unit="USD an audio hour",
        ),
        Criterion(
            name="savings",
            value=_ratio(PERCENT * (baseline - spent), baseline),
            comparison=">",
            limit=SAVINGS_PERCENT,
            unit="% below Deepgram",
        ),
    )


def _in_time(events: Sequence[CompletedEvent], hours: float) -> Criterion:
    """Return the slowest job to which this limit, and no stricter one, applies. Queue time does not count."""
    shorter = max((other for other in MINUTES_BY_AUDIO_HOURS if other < hours), default=0.0)
    slowest = max(
        (
            event.transcription_metadata.processing_time_seconds / SECONDS_PER_MINUTE
            for event in events
            if shorter < _length_hours(event) <= hours
        ),
        default=None,
    )
    return Criterion(
        name=f"up to {hours:g} h of audio",
        value=slowest,
        comparison="<",
        limit=MINUTES_BY_AUDIO_HOURS[hours],
        unit="minutes",
    )


def _length_hours(event: CompletedEvent) -> float:
    seconds = event.transcription_metadata.audio_duration_seconds
    return max(seconds - LENGTH_TOLERANCE_SECONDS, LENGTH_TOLERANCE_SECONDS) / SECONDS_PER_HOUR


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
