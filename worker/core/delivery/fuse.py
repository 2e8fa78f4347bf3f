"""The fuse: many failures in a row are either bad messages or a bad worker; a self-test tells which.

A bad deploy must not drain the topic into the dead letters, and ten malformed publishes must not stop everyone.
"""

import asyncio
from dataclasses import dataclass
from enum import StrEnum

import structlog

log = structlog.get_logger()


class FuseState(StrEnum):
    """`closed`: intake runs. `testing`: it pauses for a self-test. `open`: the self-test failed, intake stops."""

    CLOSED = "closed"
    TESTING = "testing"
    OPEN = "open"


@dataclass(frozen=True, kw_only=True, slots=True)
class FuseStatus:
    """The fuse as health and `check` show it; `reason` is empty while it is closed."""

    state: FuseState
    reason: str
    failures_in_a_row: int


class Fuse:
    """Counts verdicts; blows at `threshold` failures without a success between. Runs nothing itself.

    While it is not closed verdicts of jobs still running change nothing: only the self-test closes it.
    """

    def __init__(self, threshold: int) -> None:
        self._threshold = threshold
        self._status = FuseStatus(state=FuseState.CLOSED, reason="", failures_in_a_row=0)
        self._blown = asyncio.Event()
        self._closed = asyncio.Event()
        self._closed.set()

    @property
    def status(self) -> FuseStatus:
        """The fuse as it stands."""
        return self._status

    @property
    def is_closed(self) -> bool:
        """Whether messages may be taken in."""
        return self._status.state is FuseState.CLOSED

    async def wait_closed(self) -> None:
        """Return at once while it is closed, else when a self-test has passed."""
        await self._closed.wait()

    async def wait_blown(self) -> None:
        """Return when a self-test is due."""
        await self._blown.wait()

    def record_success(self) -> None:
        """A job was done."""
        if self.is_closed:
            self._change(FuseState.CLOSED, "", 0)

    def record_failure(self, error: Exception) -> None:
        """A job failed, for whatever reason."""
        if not self.is_closed:
            return
        failures = self._status.failures_in_a_row + 1
        if failures < self._threshold:
            self._change(FuseState.CLOSED, "", failures)
        else:
            self._change(FuseState.TESTING, f"{failures} jobs failed in a row, the last with: {error}", failures)
            log.warning("fuse.testing", failures_in_a_row=failures, last_error=str(error))

    def self_test_passed(self) -> None:
        """The messages were at fault: go on, and count from zero."""
        self._change(FuseState.CLOSED, "", 0)
        log.info("fuse.closed")

    def self_test_failed(self, error: Exception) -> None:
        """The worker is at fault: no intake until a later self-test passes."""
        reason = f"the self-test failed: {type(error).__name__}: {error}"
        self._change(FuseState.OPEN, reason, self._status.failures_in_a_row)
        log.error("fuse.opened", reason=reason)

    def _change(self, state: FuseState, reason: str, failures_in_a_row: int) -> None:
        self._status = FuseStatus(state=state, reason=reason, failures_in_a_row=failures_in_a_row)
        if state is FuseState.CLOSED:
            self._closed.set()
            self._blown.clear()
        else:
            self._closed.clear()
            self._blown.set()
