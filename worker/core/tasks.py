"""Tasks that belong together, bounded waits and backoff; and the only broad `except` around jobs."""

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from worker.ports import Clock

T = TypeVar("T")
TaskT = TypeVar("TaskT", bound=asyncio.Future[Any])


@asynccontextmanager
async def together() -> AsyncIterator[asyncio.TaskGroup]:
    """Run a task group whose first error cancels the rest and is raised by itself, not in an exception group.

    Raises `CancelledError` instead where the caller was cancelled at the same time. `TaskGroup` drops that cancellation
    before Python 3.13, and the caller would go on: it would send the chunk of a stopped job to Deepgram, for one.
    """
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("a group belongs to a task")
    before, group = task.cancelling(), asyncio.TaskGroup()
    cancelled_in_body = False
    try:
        async with group:
            try:
                yield group
            finally:
                cancelled_in_body = group._parent_cancel_requested  # type: ignore[attr-defined]  # noqa: SLF001
    except BaseExceptionGroup as errors:
        # The group cancels its own caller, and before 3.13 takes that back only where it happened in the body.
        own = group._parent_cancel_requested and not cancelled_in_body  # type: ignore[attr-defined]  # noqa: SLF001
        if own and sys.version_info < (3, 13):
            task.uncancel()
        if task.cancelling() > before:
            raise asyncio.CancelledError from errors
        raise errors.exceptions[0] from None


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


async def finished_within(work: Coroutine[Any, Any, None], seconds: float) -> None:
    """Await `work`. A cancellation leaves it `seconds` to end, and is then raised whatever became of it."""
    task = not_awaited(asyncio.create_task(work))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=seconds)
        raise
    finally:
        task.cancel()


def not_awaited(task: TaskT) -> TaskT:
    """Return the task; should its caller be cancelled meanwhile, an exception that it raises is ignored."""
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task


def abandon(task: asyncio.Future[Any]) -> None:
    """Cancel the task without awaiting it; an exception that it still raises is ignored."""
    not_awaited(task).cancel()


async def caught(work: Awaitable[T]) -> T | Exception:
    """Return the work's result, or the exception that it raised. Cancellation is not caught."""
    try:
        return await work
    except Exception as exc:  # noqa: BLE001
        return exc


def switch(event: asyncio.Event, *, on: bool) -> None:
    """Set or clear the event."""
    if on:
        event.set()
    else:
        event.clear()


def backoff_seconds(failures: int, *, base: float, most: float, rng: random.Random) -> float:
    """Return an exponential backoff in seconds, doubling from `base` to `most`, with 50 % jitter."""
    return min(most, base * 2.0 ** min(failures - 1, 30)) * rng.uniform(0.5, 1.0)
