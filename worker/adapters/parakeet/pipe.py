"""Both ends of the pipe between the worker and its inference process.

To the process go batches, ahead of their time; back come answers and heartbeats. A window's samples cross as they lie
in memory. Pickled they are copied twice on the way, into memory that is new each time: for 4 h of audio the worker took
1.1 s of a processor for that and takes 0.2 s now; the inference process took 0.5 s to read them and takes 0.25.
"""

import asyncio
import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

import numpy as np

from worker.adapters.parakeet.protocol import Answer, Batch, Beat


def send_batch(pipe: Connection, batch: Batch) -> None:
    """Return once all of the batch is in the pipe. Raises OSError where the other end is closed."""
    pipe.send((len(batch.windows), batch.is_last, batch.keyterms))
    for window in batch.windows:
        pipe.send_bytes(np.ascontiguousarray(window, np.int16))


def receive_batch(pipe: Connection) -> Batch:
    """Wait for the next batch; its windows are read-only. Raises EOFError or OSError at the pipe's end."""
    count, is_last, keyterms = pipe.recv()
    windows = tuple(np.frombuffer(pipe.recv_bytes(), np.int16) for _ in range(count))
    return Batch(windows=windows, is_last=is_last, keyterms=keyterms)


class ParentEnd:
    """The worker's end. `on_answer` and `on_end` are called on the event loop that was running when it was made."""

    def __init__(self, pipe: Connection, on_answer: Callable[[Answer], None], on_end: Callable[[], None]) -> None:
        self._pipe, self._on_answer, self._on_end = pipe, on_answer, on_end
        self._loop = asyncio.get_running_loop()
        self._outbox: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._receive, self._transmit)]
        for thread in self._threads:
            thread.start()

    def send(self, batch: Batch) -> None:
        """Send the batch without blocking."""
        self._outbox.put(batch)

    def close(self) -> None:
        """Close the pipe once the process has ended. Blocks until both threads have."""
        self._outbox.put(None)
        for thread in self._threads:
            thread.join()
        self._pipe.close()

    def _receive(self) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop is closed
            with contextlib.suppress(EOFError, OSError):
                while True:
                    self._loop.call_soon_threadsafe(self._on_answer, self._pipe.recv())
            self._loop.call_soon_threadsafe(self._on_end)

    def _transmit(self) -> None:
        with contextlib.suppress(OSError):  # a broken pipe, which `_receive` meets too
            while (batch := self._outbox.get()) is not None:
                send_batch(self._pipe, batch)


class ChildEnd:
    """The inference process's end, with a heartbeat of its own thread. The end of the pipe ends the process."""

    def __init__(self, pipe: Connection, heartbeat_seconds: float) -> None:
        self._pipe, self._heartbeat_seconds = pipe, heartbeat_seconds
        self._sending = threading.Lock()
        self._inbox: queue.SimpleQueue[Batch] = queue.SimpleQueue()
        for work in (self._receive, self._beat):
            threading.Thread(target=work, name=work.__name__.strip("_"), daemon=True).start()

    def take(self, wait: bool) -> Batch | None:
        """Return the next batch. Where there is none, wait for it, or return None without `wait`."""
        with contextlib.suppress(queue.Empty):
            return self._inbox.get(block=wait)
        return None

    def send(self, answer: Answer) -> None:
        """Return once the answer is in the pipe."""
        with _exit_at_the_end(), self._sending:
            self._pipe.send(answer)

    def _receive(self) -> None:
        with _exit_at_the_end():
            while True:
                self._inbox.put(receive_batch(self._pipe))

    def _beat(self) -> None:
        while True:
            self.send(Beat())
            time.sleep(self._heartbeat_seconds)


@contextlib.contextmanager
def _exit_at_the_end() -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError):
        os._exit(0)  # the parent is gone, and what this process computes has no reader
