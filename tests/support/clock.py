"""Clocks for tests: one that a test moves by hand, one whose wall clock is wrong, one that runs fast."""

import asyncio
import heapq
import itertools
import time
from datetime import UTC, datetime, timedelta

from worker.adapters.machine.clock import SystemClock

MOST_LOOP_TURNS = 10_000


class FakeClock:
    """`worker.ports.Clock` by hand: `advance` wakes sleepers in the order of their times, and lets the loop come to
    rest after each.

    At rest means that no task can go on without time passing. Threads, sockets and subprocesses are not waited for.
    """

    def __init__(self, now: datetime = datetime(2026, 11, 22, 10, tzinfo=UTC)) -> None:
        self._start = now
        self._seconds = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._seconds)

    def monotonic(self) -> float:
        return self._seconds

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._seconds + seconds, next(self._order), turn))
        await turn

    async def advance(self, seconds: float) -> None:
        """Let that much time pass, every sleeper waking at its own moment."""
        await self.rest()
        end = self._seconds + seconds
        while self._sleepers and self._sleepers[0][0] <= end:
            at, _, turn = heapq.heappop(self._sleepers)
            if not turn.done():
                self._seconds = max(self._seconds, at)
                turn.set_result(None)
                await self.rest()
        self._seconds = end

    async def rest(self) -> None:
        """Return when nothing can happen before time passes."""
        ready = asyncio.get_running_loop()._ready
        for _ in range(MOST_LOOP_TURNS):
            await asyncio.sleep(0)
            if not ready:
                return
        raise AssertionError("the event loop does not come to rest: something runs without waiting")


class SteppedClock(SystemClock):
    """The machine's clock with a wall clock that is off by `step`, and is set again when a test changes that."""

    step = timedelta()

    def now(self) -> datetime:
        return super().now() + self.step


class FastClock:
    """`worker.ports.Clock` at `SPEED` times the machine's speed, for whole workers with threads.

    A machine that is too busy to read the clock for a while stops it: no lease or claim expires because of the load.
    """

    SPEED = 20.0
    STEP_SECONDS = 0.02
    MOST_SECONDS = 0.1

    def __init__(self, start: datetime = datetime(2026, 11, 22, 10, tzinfo=UTC)) -> None:
        self._start, self._read, self._seconds = start, time.monotonic(), 0.0

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        before, self._read = self._read, time.monotonic()
        self._seconds += min(self._read - before, self.MOST_SECONDS) * self.SPEED
        return self._seconds

    async def sleep(self, seconds: float) -> None:
        end = self.monotonic() + seconds
        await asyncio.sleep(0)
        while (left := end - self.monotonic()) > 0:  # noqa: ASYNC110 - time passes by being read
            await asyncio.sleep(min(left / self.SPEED, self.STEP_SECONDS))
