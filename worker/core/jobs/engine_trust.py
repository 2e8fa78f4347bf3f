"""Trust in Parakeet: lost after several failed chunks in a row, regained when it recognises a sample.

`Readiness` is what the intake checks before each pull.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from worker.core.costs.budget import PaidRecogniser
from worker.core.tasks import caught
from worker.ports import Clock

# One window that kills the process twice is a bad window; three chunks in a row are a bad GPU.
FAILURES_TO_DOUBT = 3
PROBE_SECONDS = 60.0

log = structlog.get_logger(__name__)


class EngineTrust:
    """Counts the chunks of all jobs of a worker. `doubted` from the start is an engine that is not there."""

    def __init__(self, clock: Clock, *, doubted: bool = False) -> None:
        self._clock = clock
        self.failures_in_a_row = FAILURES_TO_DOUBT if doubted else 0
        self._doubted = asyncio.Event()

    def is_healthy(self) -> bool:
        """Return True while jobs may use the engine."""
        return self.failures_in_a_row < FAILURES_TO_DOUBT

    def record_success(self) -> None:
        """Record a transcribed chunk, which restores the trust."""
        if not self.is_healthy():
            log.info("engine.trusted", failures_in_a_row=self.failures_in_a_row)
        self.failures_in_a_row = 0
        self._doubted.clear()

    def record_failure(self) -> None:
        """Record a chunk that failed after the engine's own recovery."""
        self.failures_in_a_row += 1
        if self.failures_in_a_row == FAILURES_TO_DOUBT:
            log.error("engine.doubted", failures_in_a_row=self.failures_in_a_row)
            self._doubted.set()

    def doubt(self, reason: str) -> None:
        """Trust the engine no more until it recognises a sample again."""
        if self.is_healthy():
            log.error("engine.doubted", reason=reason)
        self.failures_in_a_row = max(self.failures_in_a_row, FAILURES_TO_DOUBT)
        self._doubted.set()

    async def tend(self, probe: Callable[[], Awaitable[None]]) -> None:
        """Probe a doubted engine at once and then every minute until a probe succeeds, in an endless loop.

        So no job is used as a probe, and three bad files in a row cost the worker its engine for seconds only.
        """
        while True:
            await self._doubted.wait()
            if (error := await caught(probe())) is None:
                self.record_success()
            else:
                log.warning("engine.probe_failed", reason=str(error), retry_in_seconds=PROBE_SECONDS)
                await self._clock.sleep(PROBE_SECONDS)


class Readiness:
    """Parakeet alone is enough. Without it there must be Deepgram, up, a permission to use it, and money for it.

    `may_pay`: Deepgram may do what Parakeet cannot. A message that stays in the queue is better than a job that fails.
    """

    def __init__(self, health: EngineTrust, paid: PaidRecogniser | None, *, may_pay: bool) -> None:
        self._health, self._paid, self._may_pay = health, paid, may_pay

    def why_not(self) -> str:
        """Return the reason why no job could be done now; empty where one could, or could try."""
        if self._health.is_healthy():
            return ""
        if self._paid is None:
            return "Parakeet cannot work, and there is no DEEPGRAM_API_KEY"
        if not self._may_pay:
            return "Parakeet cannot work, and ENABLE_FALLBACK is false"
        if self._paid.budget.is_spent:
            return "Parakeet cannot work, and the day's Deepgram budget is spent"
        if reason := self._paid.recogniser.down_because:
            return f"Parakeet cannot work, and Deepgram is down: {reason}"
        return ""
