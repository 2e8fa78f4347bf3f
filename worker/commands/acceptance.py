"""Promises to the users, judged by the results of a set of jobs. Pure functions."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

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

Comparison: TypeAlias = Literal["<", "<=", ">", ">="]
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
    comparison: Comparison
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
    told = [event.transcription_metadata for event in completed]
    told = [one for one in told if one.method_requested in JUDGED_METHODS]
    costs = [job.cost for job in trials if job.cost and job.completed and job.method in JUDGED_METHODS]
    audio, busy = sum(one.audio_duration_seconds for one in told), sum(one.processing_time_seconds for one in told)
    fallen, chunks = sum(one.chunks_fallback for one in told), sum(one.chunks_total for one in told)
    spent, baseline = sum(cost.usd_total for cost in costs), sum(cost.baseline.usd for cost in costs)
    hours = sum(cost.audio_seconds for cost in costs) / SECONDS_PER_HOUR
    promises: Sequence[tuple[str, float | None, Comparison, float, str]] = (
        ("success", _ratio(PERCENT * len(completed), len(trials)), ">", SUCCESS_PERCENT, "% of jobs"),
        ("speed", _ratio(audio, busy), ">=", SPEED_RATIO, "x real time"),
        ("fallback", _ratio(PERCENT * fallen, chunks), "<", FALLBACK_PERCENT, "% of chunks"),
        ("cost", _ratio(spent, hours), "<=", USD_PER_AUDIO_HOUR, "USD an audio hour"),
        ("savings", _ratio(PERCENT * (baseline - spent), baseline), ">", SAVINGS_PERCENT, "% below Deepgram"),
        *(
            (f"up to {hours:g} h of audio", _slowest_minutes(completed, hours), "<", minutes, "minutes")
            for hours, minutes in MINUTES_BY_AUDIO_HOURS.items()
        ),
    )
    return tuple(
        Criterion(name=name, value=value, comparison=comparison, limit=limit, unit=unit)
        for name, value, comparison, limit, unit in promises
    )


def has_passed(criteria: Sequence[Criterion]) -> bool:
    """Return True if every promise with a figure was kept, and at least one has a figure."""
    told = [criterion.passed for criterion in criteria if criterion.passed is not None]
    return bool(told) and all(told)


def _slowest_minutes(events: Sequence[CompletedEvent], hours: float) -> float | None:
    """Return the time of the slowest job to which this limit, and no stricter one, applies; without queue time."""
    shorter = max((other for other in MINUTES_BY_AUDIO_HOURS if other < hours), default=0.0)
    return max(
        (
            event.transcription_metadata.processing_time_seconds / SECONDS_PER_MINUTE
            for event in events
            if shorter < _length_hours(event) <= hours
        ),
        default=None,
    )


def _length_hours(event: CompletedEvent) -> float:
    seconds = event.transcription_metadata.audio_duration_seconds
    return max(seconds - LENGTH_TOLERANCE_SECONDS, LENGTH_TOLERANCE_SECONDS) / SECONDS_PER_HOUR


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
