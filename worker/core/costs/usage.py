"""What becomes of the instance's time: the engine seconds that jobs are charged for, and the rest that nobody is.

A job's cost event holds its share of engine seconds at the price of the whole instance. Added up they are less than
what the cloud bills, by the time in which the engine had nothing to do. That rest is told apart, worker by worker, in
the log: `worker.usage`.
"""

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

    async def recognise(self, samples: Pcm, job_id: str) -> Recognition:
        """The engine's answer."""
        try:
            heard = await self._recogniser.recognise(samples, job_id)
        except EngineError as exc:
            self.engine_seconds += exc.engine_seconds
            raise
        self.engine_seconds += heard.engine_seconds
        return heard


async def report_usage(engine: MeteredRecogniser, prices: Prices, clock: Clock) -> None:
    """Log the usage since now, every five minutes and at the end; for ever."""
    started_at = clock.monotonic()
    try:
        while True:
            await clock.sleep(REPORT_SECONDS)
            _report(usage(clock.monotonic() - started_at, engine.engine_seconds, prices))
    finally:
        _report(usage(clock.monotonic() - started_at, engine.engine_seconds, prices))


def _report(found: Usage) -> None:
    log.info("worker.usage", **{name: round(value, 6) for name, value in asdict(found).items()})
