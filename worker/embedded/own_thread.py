"""Support of the embedded servers: a thread for synchronous callers, and the machine's clock."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager
from datetime import UTC, datetime
from time import monotonic
from typing import Any, TypeVar

_Server = TypeVar("_Server", bound=AbstractAsyncContextManager[Any])


@contextmanager
def in_thread(server: _Server) -> Iterator[_Server]:
    """Run the server on an event loop of its own; leaving the context stops it. Raises the `OSError` of its start."""
    started: Future[Callable[[], object]] = Future()

    async def serve() -> None:
        stopping, loop = asyncio.Event(), asyncio.get_running_loop()
        async with server:
            started.set_result(lambda: loop.call_soon_threadsafe(stopping.set))
            await stopping.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except OSError as exc:
            started.set_exception(exc)

    thread = threading.Thread(target=run, name=type(server).__name__, daemon=True)
    thread.start()
    stop = started.result()
    try:
        yield server
    finally:
        stop()
        thread.join()


class MachineClock:
    """Default `worker.ports.Clock` of a server; embedded code must not import `worker.adapters`."""

    def now(self) -> datetime:
        """Return the wall-clock time in UTC, timezone-aware."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""
        return monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return after that long."""
        await asyncio.sleep(seconds)
