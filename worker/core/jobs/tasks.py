"""Tasks that belong together, and tasks that outlive their caller."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def together() -> AsyncIterator[asyncio.TaskGroup]:
    """Run a task group whose first error cancels the rest and is raised by itself, not in an exception group."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as errors:
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
