"""One inference process as its parent sees it."""

import asyncio
import atexit
import contextlib
import queue
import signal
import threading
import time
from collections.abc import Callable
from typing import assert_never

from schemas.codes import ErrorCode
from worker.adapters.parakeet.child_process import main as child
from worker.adapters.parakeet.child_process import serve as process
from worker.adapters.parakeet.child_process.main import Program
from worker.adapters.parakeet.pipe import send_batch
from worker.adapters.parakeet.protocol import Answer, Batch, Beat, Done, EngineOptions, Failed, Ready
from worker.errors import GpuNotAvailable, ModelLoadingError, WorkerError
from worker.ports import EngineFacts


class InferenceProcess:
    """A child process with a model, from its start to its SIGKILL. Belongs to one event loop.

    Start it in a thread that lives as long as the worker: Linux kills the child when that thread ends. `on_done` is
    called on the event loop for every answered batch, in the order of `submit`, and never after `kill`. `program` is
    what the child runs, `process.main` or one that keeps its promises.
    """

    def __init__(self, options: EngineOptions, on_done: Callable[[Done], None], program: Program) -> None:
        self._options, self._on_done, self._program = options, on_done, program
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[EngineFacts] = self._loop.create_future()
        self._outbox: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._killed = False
        self.ended = asyncio.Event()
        """Set when the process has ended by itself; `failure` then says why."""
        self.failure: str | None = None
        self.beats = 0
        self.last_beat = time.monotonic()
        self.device_memory_bytes = 0
        self.mixes_lengths, self.batches_under_way = False, 1
        """As `Ready` says."""
        self._start()

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    async def until_ready(self, timeout_seconds: float) -> EngineFacts:
        """Wait for the model. Raises `ModelLoadingError` or `GpuNotAvailable`, and leaves the killing to the caller."""
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self._ready
        except TimeoutError as exc:
            raise ModelLoadingError(self._options.model_name, f"not ready within {timeout_seconds:.0f} s") from exc

    def submit(self, batch: Batch) -> None:
        """Send the batch, without waiting."""
        self._outbox.put(batch)

    async def kill(self) -> None:
        """End the process, whatever state it is in, and everything that served it here. May be called again."""
        self._killed = True
        self._process.kill()
        self._outbox.put(None)
        await asyncio.shield(asyncio.to_thread(self._join))

    def _start(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, process.PARENTS_SIGNALS)  # the child inherits the mask
        try:
            self._process, self._pipe = child.start(self._program, self._options)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, process.PARENTS_SIGNALS)
        atexit.register(self._process.kill)  # it ignores SIGTERM, and a worker that ends by an error leaves none
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._receive, self._transmit)]
        for thread in self._threads:
            thread.start()

    def _receive(self) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop is closed, so nobody is left to tell
            with contextlib.suppress(EOFError, OSError):
                while True:
                    self._loop.call_soon_threadsafe(self._received, self._pipe.recv())
            self._loop.call_soon_threadsafe(self._pipe_ended)

    def _transmit(self) -> None:
        with contextlib.suppress(OSError):  # a broken pipe: the receiver sees it too
            while (batch := self._outbox.get()) is not None:
                send_batch(self._pipe, batch)

    def _received(self, answer: Answer) -> None:
        if self._killed:
            return
        match answer:
            case Beat():
                self.beats += 1
                self.last_beat = time.monotonic()
            case Ready():
                self.device_memory_bytes = answer.device_memory_bytes
                self.mixes_lengths, self.batches_under_way = answer.mixes_lengths, answer.batches_under_way
                self._ready.set_result(answer.facts)
            case Done():
                self.device_memory_bytes = answer.device_memory_bytes
                self._on_done(answer)
            case Failed():
                self._failed(answer)
            case _:
                assert_never(answer)

    def _failed(self, answer: Failed) -> None:
        self.failure = answer.reason
        if not self._ready.done():
            self._ready.set_exception(self._start_error(answer))

    def _start_error(self, answer: Failed) -> WorkerError:
        if answer.code is ErrorCode.GPU_NOT_AVAILABLE:
            return GpuNotAvailable(answer.reason)
        return ModelLoadingError(self._options.model_name, answer.reason)

    def _pipe_ended(self) -> None:
        if self._killed:
            return
        self.failure = self.failure or "the process was killed"
        if not self._ready.done():
            self._ready.set_exception(ModelLoadingError(self._options.model_name, self.failure))
        self.ended.set()

    def _join(self) -> None:
        self._process.wait()
        for thread in self._threads:
            thread.join()
        self._pipe.close()
        atexit.unregister(self._process.kill)
