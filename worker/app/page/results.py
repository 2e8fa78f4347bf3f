"""The state bucket and its ended jobs, kept between looks: each result marker is read once a generation."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from schemas.dead_letter import DeadLetter, DeadLetterUnreadable, parse_dead_letter
from schemas.events import CompletedEvent, CostEvent, Event, FailedEvent
from schemas.state import ResultMarker
from worker.adapters.gcs import open_object_store
from worker.core.costs.report import events_in
from worker.errors import ObjectNotFound, WorkerError
from worker.ports import ObjectFacts, ObjectStore

PREFIX = "results/"
KEPT_DAYS = 14
MOST_RESULTS = 5_000
READS_AT_ONCE = 6
SHARE_OF_TIME = 20
"""A look that takes a second is followed by twenty without one: a full bucket must not be listed without pause."""
LEAST_SECONDS = 1.0
PATIENCE_SECONDS = 2.0
"""A page does not wait longer for a look."""


@dataclass(frozen=True, kw_only=True)
class JobResult:
    """The end of one job's last run."""

    marker: ResultMarker
    events: Sequence[Event]

    @property
    def ended(self) -> CompletedEvent | FailedEvent | None:
        """The terminal event; None where this version cannot read it."""
        found = [event for event in self.events if isinstance(event, CompletedEvent | FailedEvent)]
        return found[-1] if found else None

    @property
    def cost(self) -> CostEvent | None:
        """The cost event of the same run."""
        found = [event for event in self.events if isinstance(event, CostEvent) and event.run == self.marker.run]
        return found[-1] if found else None

    @property
    def dead_letter(self) -> DeadLetter | None:
        """The failed run's letter."""
        for message in self.marker.messages:
            if message.topic == "dead_letter":
                with suppress(DeadLetterUnreadable):
                    return parse_dead_letter(message.data.encode())
        return None


@dataclass(kw_only=True)
class Results:
    """The results of the last two weeks, at most 5,000. Belongs to one event loop."""

    store: ObjectStore
    bucket: str
    problem: str = "The state bucket is being read."
    """The reason why the results may be incomplete; empty after a look that succeeded."""
    _found: dict[str, tuple[int, JobResult | None]] = field(default_factory=dict)
    _next_at: float = 0.0
    _looking: asyncio.Task[None] | None = None

    async def newest(self) -> Sequence[JobResult]:
        """Return the results, the newest first; those of the last look where the bucket takes long to list."""
        if self._looking is None and time.monotonic() >= self._next_at:
            self._looking = asyncio.create_task(self._timed_look(), name="results")
        if self._looking is not None:
            await asyncio.wait({self._looking}, timeout=PATIENCE_SECONDS)
        found = [result for _, result in self._found.values() if result is not None]
        return sorted(found, key=lambda result: result.marker.concluded_at, reverse=True)

    async def _timed_look(self) -> None:
        began = time.monotonic()
        try:
            await self._look()
        finally:
            took = time.monotonic() - began
            self._next_at, self._looking = time.monotonic() + max(LEAST_SECONDS, SHARE_OF_TIME * took), None

    async def _look(self) -> None:
        since = datetime.now(UTC) - timedelta(days=KEPT_DAYS)
        try:
            listed = await self.store.list(self.bucket, PREFIX)
            recent = sorted(listed, key=lambda facts: facts.created_at)[-MOST_RESULTS:]
            recent = [facts for facts in recent if facts.created_at >= since]
            await self._read(recent)
            self.problem = ""
        except WorkerError as exc:
            self.problem = f"The state bucket cannot be read: {exc}"

    async def _read(self, recent: Sequence[ObjectFacts]) -> None:
        known, slots = self._found, asyncio.Semaphore(READS_AT_ONCE)

        async def read(facts: ObjectFacts) -> tuple[int, JobResult | None]:
            async with slots:
                try:
                    data, stored = await self.store.read(facts.ref)
                except ObjectNotFound:  # deleted since it was listed
                    return facts.generation, None
            return stored.generation, parsed(data)

        names = {facts.ref.name: facts for facts in recent}
        fresh = [facts for name, facts in names.items() if name not in known or known[name][0] != facts.generation]
        read_now = await asyncio.gather(*(read(facts) for facts in fresh))
        kept: Mapping[str, tuple[int, JobResult | None]] = {name: known[name] for name in names if name in known}
        self._found = {**kept, **{facts.ref.name: result for facts, result in zip(fresh, read_now, strict=True)}}


def parsed(data: bytes) -> JobResult | None:
    """Return the marker with its events; None for content that is no marker."""
    try:
        marker = ResultMarker.model_validate_json(data)
    except ValidationError:
        return None
    return JobResult(marker=marker, events=events_in(marker))


@dataclass(kw_only=True)
class StateBucket:
    """The state bucket, opened when it is needed first. Belongs to one event loop."""

    project: str
    name: str
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    _results: Results | None = None
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Close on leaving what was opened in between."""
        async with self._stack:
            yield

    async def results(self) -> Results:
        """Return the results. Raises `StorageServiceError` where no client can be made."""
        async with self._opening:
            if self._results is None:
                store = await self._stack.enter_async_context(open_object_store(project=self.project))
                self._results = Results(store=store.impatient(), bucket=self.name)
            return self._results
