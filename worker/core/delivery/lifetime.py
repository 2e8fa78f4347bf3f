"""How the consumer ends: told to, told to hurry, or because one of its tasks died."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

from worker.core.delivery.timing import first_of
from worker.ports import Clock

log = structlog.get_logger()


class Lifetime:
    """The stop signal, and the owner of tasks whose death sends it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._stopping = asyncio.Event()
        self._at_once = asyncio.Event()
        self._cause_of_death: BaseException | None = None

    @property
    def is_stopping(self) -> bool:
        """Whether the end has begun."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Begin the end; the second call takes every grace away."""
        if self._stopping.is_set():
            self._at_once.set()
        self._stopping.set()

    def die(self, error: BaseException, where: str) -> None:
        """Begin the end because of an error, which `raise_cause_of_death` raises; the first one counts."""
        log.error("consumer.died", where=where, exc_info=error)
        self._cause_of_death = self._cause_of_death or error
        self._stopping.set()

    def own(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run it in a task of that name. An error in it is the end of all, and so is a cancellation before the end."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        return task

    async def wait_for_stop(self) -> None:
        """Return when the end begins; it begins likewise when the waiting is cancelled."""
        try:
            await self._stopping.wait()
        finally:
            self._stopping.set()

    async def grace(self, seconds: float) -> None:
        """Return after that long, or at once when told to hurry."""
        await first_of(self._clock.sleep(seconds), self._at_once.wait())

    def raise_cause_of_death(self) -> None:
        """Raise the error that was the end, if there was one."""
        if self._cause_of_death is not None:
            raise self._cause_of_death

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            if not self.is_stopping:
                self.die(RuntimeError(f"the task {task.get_name()} was cancelled although nothing stopped it"), "owner")
        elif (error := task.exception()) is not None:
            self.die(error, task.get_name())
