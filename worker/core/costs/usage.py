"""Split of instance time into engine seconds that are billed to jobs, and idle time.

A job's cost event has its share of engine seconds at the price of the whole instance. The sum over all jobs is less
than the cloud's bill, by the time in which the engine was idle. Each worker logs that rest as `worker.usage`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import structlog

from worker.core.costs.bill import PERCENT, Prices
from worker.errors import EngineError
from worker.ports import Clock, EngineFacts, Pcm, Recognition, WindowRecogniser

REPORT_SECONDS = 300.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Seconds of one instance, and their dollars. `idle` is what no job was charged for."""

    up_seconds: float
    engine_seconds: float
    idle_seconds: float
    instance_usd: float
    jobs_usd: float
    idle_usd: float
    idle_percent: float


def usage(up_seconds: float, engine_seconds: float, prices: Prices) -> Usage:
    """Split the time. Engine seconds above the time there was (a twin at a pace of its own) leave no idle time."""
    idle_seconds = max(0.0, up_seconds - engine_seconds)
    usd = prices.instance_usd_per_second
    return Usage(
        up_seconds=up_seconds,
        engine_seconds=engine_seconds,
        idle_seconds=idle_seconds,
        instance_usd=up_seconds * usd,
        jobs_usd=engine_seconds * usd,
        idle_usd=idle_seconds * usd,
        idle_percent=PERCENT * idle_seconds / up_seconds if up_seconds else 0.0,
    )


class MeteredRecogniser:
    """A `WindowRecogniser` that adds up what its engine spends on all jobs."""

    def __init__(self, recogniser: WindowRecogniser) -> None:
        self._recogniser = recogniser
        self.engine_seconds = 0.0

    @property
    def facts(self) -> EngineFacts:
        """The engine's."""
        return self._recogniser.facts

    def unspeakable(self, keyterms: Sequence[str]) -> tuple[str, ...]:
        """Return the keyterms that the engine cannot spell."""
        return self._recogniser.unspeakable(keyterms)

    async def recognise(
        self, samples: Pcm, job_id: str, *, keyterms: tuple[str, ...] = (), team_id: str = ""
    ) -> Recognition:
        """Recognise a window with the engine, and count its time."""
        try:
            recognition = await self._recogniser.recognise(samples, job_id, keyterms=keyterms, team_id=team_id)
        except EngineError as exc:
            self.engine_seconds += exc.engine_seconds
            raise
        self.engine_seconds += recognition.engine_seconds
        return recognition


async def report_usage(engine: MeteredRecogniser, prices: Prices, clock: Clock) -> None:
    """Log the usage every five minutes and at the end, in an endless loop."""
    started_at = clock.monotonic()
    try:
        while True:
            await clock.sleep(REPORT_SECONDS)
            _report(usage(clock.monotonic() - started_at, engine.engine_seconds, prices))
    finally:
        _report(usage(clock.monotonic() - started_at, engine.engine_seconds, prices))


def _report(found: Usage) -> None:
    log.info("worker.usage", **{name: round(value, 6) for name, value in asdict(found).items()})
