"""The fuse: after many failures in a row a self-test decides between bad messages and a bad worker.

A bad deployment must not drain the topic into the dead letters, and ten malformed messages must not stop all others.
"""

import asyncio
from dataclasses import dataclass
from enum import StrEnum

import structlog

from worker.core.delivery.fitness import Fitness
from worker.core.tasks import caught, switch
from worker.errors import InvalidJob, JobIdConflict, UnsupportedSchemaVersion
from worker.ports import Clock

SELF_TEST_PAUSE_SECONDS = 60.0
MOST_FAILURES_BETWEEN_SELF_TESTS = 1000
SEEN_IN_THE_MESSAGE = (InvalidJob, JobIdConflict, UnsupportedSchemaVersion)

log = structlog.get_logger()


class FuseState(StrEnum):
    """`closed`: intake runs. `testing`: it pauses for a self-test. `open`: the self-test failed, intake stops."""

    CLOSED = "closed"
    TESTING = "testing"
    OPEN = "open"


@dataclass(frozen=True, kw_only=True, slots=True)
class FuseStatus:
    """State of the fuse, for health endpoints; `reason` is empty while the fuse is closed."""

    state: FuseState
    reason: str
    failures_in_a_row: int


class Fuse:
    """Counts failed deliveries, and blows at `threshold` failures without a success in between.

    Only a passed self-test closes it again; until then failures are not counted. Each passed self-test without a
    success doubles the threshold, so that passing tests do not slow down a flood of bad messages.
    """

    def __init__(self, threshold: int) -> None:
        self._least_threshold = self._threshold = threshold
        self.status = FuseStatus(state=FuseState.CLOSED, reason="", failures_in_a_row=0)
        self._blown = asyncio.Event()
        self._closed = asyncio.Event()
        self._closed.set()
        self._only_messages = True
        self._passed_at = float("-inf")

    @property
    def is_closed(self) -> bool:
        """True while messages may be pulled."""
        return self.status.state is FuseState.CLOSED

    async def wait_closed(self) -> None:
        """Wait until the fuse is closed."""
        await self._closed.wait()

    def record_success(self) -> None:
        """Reset the count of failures: a job was completed."""
        if self.is_closed:
            self._threshold, self._only_messages = self._least_threshold, True
            self._change(FuseState.CLOSED, "", 0)

    def record_failure(self, error: Exception) -> None:
        """Count a delivery that failed through a fault of its job, or an unknown one."""
        if not self.is_closed:
            return
        self._only_messages = self._only_messages and isinstance(error, SEEN_IN_THE_MESSAGE)
        failures = self.status.failures_in_a_row + 1
        if failures < self._threshold:
            self._change(FuseState.CLOSED, "", failures)
        else:
            self._change(FuseState.TESTING, f"{failures} jobs failed in a row, the last with: {error}", failures)
            log.warning("fuse.testing", failures_in_a_row=failures, last_error=str(error))

    async def tend(self, fitness: Fitness, clock: Clock) -> None:
        """Run a self-test whenever the fuse has blown, at most one a minute, in an endless loop.

        Faults that are evident from the messages need none within a minute of one that passed.
        """
        began = float("-inf")
        while True:
            await self._blown.wait()
            if not (self._only_messages and clock.monotonic() - self._passed_at < SELF_TEST_PAUSE_SECONDS):
                await clock.sleep(began + SELF_TEST_PAUSE_SECONDS - clock.monotonic())
                began = clock.monotonic()
                if (error := await caught(fitness.self_test())) is not None:
                    self._failed(error)
                    await fitness.wait_fit()
                self._passed_at = clock.monotonic()
            self._passed()

    def _passed(self) -> None:
        self._threshold = min(2 * self._threshold, MOST_FAILURES_BETWEEN_SELF_TESTS)
        self._only_messages = True
        self._change(FuseState.CLOSED, "", 0)
        log.info("fuse.closed")

    def _failed(self, error: Exception) -> None:
        reason = f"the self-test failed: {error}"
        self._change(FuseState.OPEN, reason, self.status.failures_in_a_row)
        log.error("fuse.opened", reason=reason)

    def _change(self, state: FuseState, reason: str, failures_in_a_row: int) -> None:
        self.status = FuseStatus(state=state, reason=reason, failures_in_a_row=failures_in_a_row)
        switch(self._closed, on=self.is_closed)
        switch(self._blown, on=not self.is_closed)
