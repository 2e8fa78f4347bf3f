"""Costs of many jobs by day and engine: the pure arithmetic of `klipstream-worker costs`."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

from schemas.events import CompletedEvent, CostEvent, Event, EventUnreadable, FailedEvent, parse_event
from schemas.state import ResultMarker
from worker.core.costs.bill import PERCENT

SECONDS_PER_HOUR = 3600


@dataclass(frozen=True, kw_only=True)
class Spending:
    """Seconds of transcribed audio, their cost, and Deepgram's price for them."""

    audio_seconds: float = 0.0
    usd: float = 0.0
    baseline_usd: float = 0.0

    def __add__(self, other: "Spending") -> "Spending":
        return Spending(
            audio_seconds=self.audio_seconds + other.audio_seconds,
            usd=self.usd + other.usd,
            baseline_usd=self.baseline_usd + other.baseline_usd,
        )

    @property
    def audio_hours(self) -> float:
        """The same in hours."""
        return self.audio_seconds / SECONDS_PER_HOUR

    @property
    def usd_per_audio_hour(self) -> float | None:
        """None where there is no audio to divide by."""
        return self.usd / self.audio_hours if self.audio_seconds else None

    @property
    def savings_percent(self) -> float | None:
        """Against Deepgram; below zero where it cost more, None where there is nothing to compare with."""
        return PERCENT * (1 - self.usd / self.baseline_usd) if self.baseline_usd else None


@dataclass(frozen=True, kw_only=True)
class Period:
    """A day, or all of them: spending by engine, and chunks of the jobs whose endings are known."""

    engines: Mapping[str, Spending] = field(default_factory=dict)
    jobs: int = 0
    failed_jobs: int = 0
    chunks: int = 0
    fallback_chunks: int = 0

    @property
    def total(self) -> Spending:
        """All engines together."""
        return sum(self.engines.values(), Spending())

    @property
    def fallback_percent(self) -> float | None:
        """Share of chunks that Parakeet could not do and Deepgram did; None where no chunks are known of."""
        return PERCENT * self.fallback_chunks / self.chunks if self.chunks else None

    def __add__(self, other: "Period") -> "Period":
        names = sorted({*self.engines, *other.engines})
        nothing = Spending()
        return Period(
            engines={name: self.engines.get(name, nothing) + other.engines.get(name, nothing) for name in names},
            jobs=self.jobs + other.jobs,
            failed_jobs=self.failed_jobs + other.failed_jobs,
            chunks=self.chunks + other.chunks,
            fallback_chunks=self.fallback_chunks + other.fallback_chunks,
        )


@dataclass(frozen=True, kw_only=True)
class CostReport:
    """Every UTC day on which jobs ended, in order."""

    days: Mapping[date, Period]

    @property
    def total(self) -> Period:
        """All days together."""
        return sum(self.days.values(), Period())

    def lines(self) -> Iterator[tuple[str, str, Spending, Period | None]]:
        """Yield a day's engines, each with its spending, the day itself as engine `all`, and at the end day `all`.

        Sums have the period that they are of.
        """
        for day, period in (*self.days.items(), ("all", self.total)):
            for engine, spending in period.engines.items():
                yield str(day), engine, spending, None
            yield str(day), "all", period.total, period


def report(events: Iterable[Event], since: datetime) -> CostReport:
    """Add up the jobs that ended at `since` or later.

    Of each job every completed run counts, and else the last failed one: the bill of a run holds the chunks of the
    failed runs before it. Duplicates of an event count once.
    """
    days: dict[date, Period] = defaultdict(Period)
    for cost, terminal in _endings(events):
        if cost.occurred_at >= since:
            days[cost.occurred_at.date()] += _period_of(cost, terminal)
    return CostReport(days=dict(sorted(days.items())))


def events_in(marker: ResultMarker) -> Sequence[Event]:
    """Return the events in a result marker, without those that this version cannot read."""
    return tuple(
        event
        for message in (*marker.earlier_costs, *marker.messages)
        if message.topic == "completion" and (event := event_in(message.data.encode())) is not None
    )


def event_in(data: bytes) -> Event | None:
    """One event, or None for what is none."""
    try:
        return parse_event(data)
    except EventUnreadable:
        return None


def _endings(events: Iterable[Event]) -> Iterable[tuple[CostEvent, CompletedEvent | FailedEvent | None]]:
    """Yield the cost of each run that counts, with its terminal event where that is known."""
    costs: dict[str, list[CostEvent]] = defaultdict(list)
    terminals: dict[tuple[str | None, int, str], CompletedEvent | FailedEvent] = {}
    for event in events:
        match event:
            case CostEvent():
                costs[event.job.job_id or event.event_id].append(event)
            case CompletedEvent() | FailedEvent():
                outcome = "completed" if isinstance(event, CompletedEvent) else "failed"
                terminals[event.job.job_id, event.run, outcome] = event
            case _:
                pass
    for of_job in costs.values():
        for cost in _counted(of_job):
            yield cost, terminals.get((cost.job.job_id, cost.run, cost.outcome))


def _counted(costs: Sequence[CostEvent]) -> Iterable[CostEvent]:
    """Those of one job's cost events that count."""
    completed = {cost.run: cost for cost in costs if cost.outcome == "completed"}
    yield from completed.values()
    failed = [cost for cost in costs if cost.outcome == "failed" and cost.run > max(completed, default=-1)]
    if failed:
        # A refused message under the same id costs nothing, and replaces no run that did.
        yield max(failed, key=lambda cost: (cost.usd_total > 0 or cost.audio_seconds > 0, cost.run, cost.audio_seconds))


def _period_of(cost: CostEvent, terminal: CompletedEvent | FailedEvent | None) -> Period:
    told = terminal.transcription_metadata if terminal else None
    chunks = (told.chunks_total or 0) if told else 0
    baseline_per_second = cost.baseline.usd / cost.audio_seconds if cost.audio_seconds else 0.0
    return Period(
        engines={
            engine.engine: Spending(
                audio_seconds=engine.audio_seconds,
                usd=engine.usd,
                baseline_usd=engine.audio_seconds * baseline_per_second,
            )
            for engine in cost.engines
        },
        jobs=1,
        failed_jobs=int(cost.outcome == "failed"),
        chunks=chunks,
        fallback_chunks=(told.chunks_fallback or 0) if told and chunks else 0,
    )
