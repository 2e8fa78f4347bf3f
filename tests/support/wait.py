"""Wait-until helpers: tests name what they wait for, never how long it takes."""

import asyncio
import time
from collections.abc import Awaitable, Callable

STEP_SECONDS = 0.02
PATIENCE_SECONDS = 60.0
"""Default limit for a busy machine; a condition that becomes true in time does not need it."""


def wait_until(condition: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
    """Return once the condition holds; fail after that long."""
    give_up_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up_at, f"did not come true within {seconds:g} s"
        time.sleep(STEP_SECONDS)


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = PATIENCE_SECONDS) -> None:
    """The same on the event loop, for a condition that is asked for with await."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - the condition is behind a network
            await asyncio.sleep(STEP_SECONDS)
