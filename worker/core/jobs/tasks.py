"""Tasks that belong together, and tasks that outlive their caller."""

import asyncio
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any


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


def noted(task: asyncio.Task[Any]) -> None:
    """Take note of how a shielded task ended, so that asyncio does not report it as never retrieved."""
    if not task.cancelled():
        task.exception()


async def finished(work: Coroutine[Any, Any, None], seconds: float) -> None:
    """Await `work`. A cancellation leaves it `seconds` to end, and is then raised whatever became of it."""
    task = asyncio.create_task(work)
    task.add_done_callback(noted)  # it is not raised after a cancellation
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=seconds)
        raise
    finally:
        task.cancel()
