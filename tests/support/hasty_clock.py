"""A clock on which time passes faster than on the machine's: whole workers with threads, in tests of minutes."""

import asyncio
import time
from datetime import UTC, datetime, timedelta


class HastyClock:
    """`worker.ports.Clock`, `speed` times as fast as the real one."""

    def __init__(self, speed: float = 20.0, start: datetime = datetime(2026, 11, 22, 10, tzinfo=UTC)) -> None:
        self._speed, self._start, self._began = speed, start, time.monotonic()

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        return (time.monotonic() - self._began) * self._speed

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(seconds, 0.0) / self._speed)
