"""Waiting for one of several things on the event loop."""

import asyncio
from collections.abc import Coroutine
from typing import Any


class Signal:
    """Wakes everyone who waits at that moment."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        """Wake the waiting ones."""
        self._event.set()
        self._event = asyncio.Event()

    def wait(self) -> Coroutine[Any, Any, object]:
        """Return at the next `notify` after this call, also where that comes before the result is awaited."""
        return self._event.wait()


async def first_of(*waits: Coroutine[Any, Any, object]) -> None:
    """Return when the first has ended; the others are cancelled. What it raised is raised here."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
