"""Messages between the worker and its inference process, and the pipe's two ends.

A window's samples cross the pipe as they lie in memory. Pickled they are copied twice on the way, into memory that is
new each time: that takes the worker five times as long, and the process twice.
"""

import asyncio
import contextlib
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from schemas.codes import ErrorCode
from schemas.speech import Word
from worker.adapters.parakeet.frames import PassPlan
from worker.ports import EngineFacts, Pcm

if TYPE_CHECKING:
    from worker.telemetry import LogFormat, LogLevel  # which imports structlog, and a bare GPU machine has none

Precision: TypeAlias = Literal["bfloat16", "float16", "float32"]
"""Precision of the model; torch's names."""

EngineKind: TypeAlias = Literal["auto", "native", "nemo"]
"""The worker's own network, NeMo, or with auto the network where it knows the model and NeMo otherwise."""

PARENTS_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""A terminal and a platform send these to the whole process group; only the worker acts on them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineOptions:
    """Options of an inference process."""

    model_name: str
    """A hub name, or a file or folder."""
    device: str
    """cuda, cpu or auto; `cuda` without a GPU never falls back to the CPU."""
    batch_size: int | None
    """Most windows of 30 s in a pass of the encoder; None: as suits the device."""
    memory_limit_gib: float
    gpu_precision: Precision = "bfloat16"
    gpu_graphs: bool = True
    cpu_threads: int = 1
    """Number of windows encoded concurrently on a CPU."""
    overlap: bool = True
    """Encode the next batches before the decoder has finished the last; False: one batch after the other."""
    heartbeat_seconds: float = 0.5
    log_format: "LogFormat" = "auto"
    log_level: "LogLevel" = "info"
    keyterm_weight: float = 3.5
    """Boost of a whole keyterm in log-probability; 0: keyterms change nothing."""
    engine: EngineKind = "auto"
    languages: frozenset[str] = frozenset()
    """The model's languages; empty: those that it is known for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """To the process: the windows of one pass of the encoder, within the plan that the process was ready with."""

    windows: tuple[Pcm, ...]
    is_last: bool
    """No other window was waiting when the batch was sent: a chunk ends with it."""
    keyterms: tuple[tuple[str, ...], ...] = ()
    """Those of each window; empty where no window has any."""


@dataclass(frozen=True, slots=True)
class Beat:
    """The process is alive and gets processor time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ready:
    """The model is loaded and warm."""

    facts: EngineFacts
    device_memory_bytes: int
    plan: PassPlan
    batches_in_flight: int = 2
    """Number of full batches that keep the process busy: it encodes some before it answers others."""
    pieces: tuple[str, ...] = ()
    """The vocabulary; empty: not known, and every keyterm passes for speakable."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """The process ends: it could not start, or an error that it cannot survive struck it."""

    code: ErrorCode
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """The words of each window of the batch, in order; None: not even one window fits into device memory.

    `seconds` is the batch's share of the engine's time; the shares add up to what the engine was busy.
    """

    words: tuple[tuple[Word, ...], ...] | None
    seconds: float
    device_memory_bytes: int


Answer: TypeAlias = Beat | Ready | Failed | Done


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
