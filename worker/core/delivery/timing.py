"""Bounded waits and backoff, on a clock that is passed as a parameter; and the only broad `except` around jobs."""

import asyncio
import random
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

from worker.ports import Clock

T = TypeVar("T")


async def first_of(*waits: Awaitable[object]) -> None:
    """Wait for the first of several waits to end and cancel the others. The waits must not raise."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


async def bounded(work: Awaitable[T], seconds: float, clock: Clock) -> T:
    """Return the result of `work`, or raise `TimeoutError` after `seconds`, even if `work` ignores its cancellation.

    Work that exceeds the limit is abandoned.
    """
    task = asyncio.ensure_future(work)
    try:
        await first_of(asyncio.wait({task}), clock.sleep(seconds))
        if task.done():
            return task.result()
        raise TimeoutError(f"no answer within {seconds:g} s")
    finally:
        abandon(task)


async def finished(work: Coroutine[Any, Any, T]) -> T:
    """Return the result of `work`, even if the caller is cancelled meanwhile: that takes effect at its next await."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if (caller := asyncio.current_task()) is None or task.cancelled():
            raise
        await asyncio.wait({task})
        caller.uncancel()
        caller.cancel()
        return task.result()


def abandon(task: asyncio.Future[Any]) -> None:
    """Cancel the task without awaiting it; an exception that it still raises is ignored."""
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    task.cancel()


async def caught(work: Awaitable[T]) -> T | Exception:
    """Return the work's result, or the exception that it raised. Cancellation is not caught."""
    try:
        return await work
    except Exception as exc:  # noqa: BLE001
        return exc


def backoff_seconds(failures: int, *, base: float, most: float, rng: random.Random) -> float:
    """Return an exponential backoff in seconds, doubling from `base` to `most`, with 50 % jitter."""
    return min(most, base * 2.0 ** min(failures - 1, 30)) * rng.uniform(0.5, 1.0)
