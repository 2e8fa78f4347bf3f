"""The machine's own clock."""

import asyncio
import time
from datetime import UTC, datetime


class SystemClock:
    """`worker.ports.Clock` on the machine's clocks and asyncio's timers."""

    def now(self) -> datetime:
        """The UTC wall clock, timezone-aware."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back; it stands still while the machine is suspended."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return after that long."""
        await asyncio.sleep(seconds)
