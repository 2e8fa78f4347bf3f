"""Waiting with a limit, on a clock that comes in as a parameter."""

import asyncio
import random
from collections.abc import Awaitable
from typing import Any, TypeVar

from worker.ports import Clock

T = TypeVar("T")


async def first_of(*waits: Awaitable[object]) -> None:
    """Return when the first of them has ended, the others cancelled. For waits that do not raise."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


async def bounded(work: Awaitable[T], seconds: float, clock: Clock) -> T:
    """Return what `work` returns, or raise `TimeoutError` after `seconds`, even where `work` ignores its cancellation.

    Work that is cut off is abandoned.
    """
    task = asyncio.ensure_future(work)
    try:
        await first_of(asyncio.wait({task}), clock.sleep(seconds))
        if task.done():
            return task.result()
        raise TimeoutError(f"no answer within {seconds:g} s")
    finally:
        abandon(task)


def abandon(task: asyncio.Future[Any]) -> None:
    """Cancel it and wait for nothing; what it may still raise is nobody's business."""
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    task.cancel()


def backoff_seconds(failures: int, *, base: float, most: float, rng: random.Random) -> float:
    """Seconds to wait after that many failures in a row: doubling from `base` to `most`, half of it by chance."""
    return min(most, base * 2.0 ** min(failures - 1, 30)) * rng.uniform(0.5, 1.0)
