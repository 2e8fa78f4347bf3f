"""End of the consumer: by a graceful stop, an immediate stop, or the error of a background task."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

from worker.core.tasks import first_of
from worker.ports import Clock

log = structlog.get_logger()


class Lifetime:
    """Stop signal of the consumer, and owner of its tasks: an error in a task triggers the stop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._stopping = asyncio.Event()
        self._at_once = asyncio.Event()
        self._cause_of_death: BaseException | None = None

    @property
    def is_stopping(self) -> bool:
        """True once the shutdown has begun."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Start a graceful shutdown; a second call makes it immediate."""
        if self._stopping.is_set():
            self._at_once.set()
        self._stopping.set()

    def die(self, error: BaseException, where: str) -> None:
        """Start the shutdown because of an error; `raise_cause_of_death` raises the first such error."""
        log.error("consumer.died", where=where, exc_info=error)
        self._cause_of_death = self._cause_of_death or error
        self._stopping.set()

    def own(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run the work in a named task. If it fails, or is cancelled before the shutdown, the consumer stops."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        return task

    async def wait_for_stop(self) -> None:
        """Wait for the shutdown to begin; a cancelled wait starts it."""
        try:
            await self._stopping.wait()
        finally:
            self._stopping.set()

    async def grace(self, seconds: float) -> None:
        """Wait for `seconds`, or until the shutdown becomes immediate."""
        await first_of(self._clock.sleep(seconds), self._at_once.wait())

    def raise_cause_of_death(self) -> None:
        """Raise the error that caused the shutdown, if any."""
        if self._cause_of_death is not None:
            raise self._cause_of_death

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            if not self.is_stopping:
                self.die(RuntimeError(f"the task {task.get_name()} was cancelled although nothing stopped it"), "owner")
        elif (error := task.exception()) is not None:
            self.die(error, task.get_name())
