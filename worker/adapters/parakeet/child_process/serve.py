"""The inference process: what runs in the child. NeMo is imported only once it runs, so the parent never has it."""

import contextlib
import ctypes
import gc
import logging
import os
import queue
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Protocol

import structlog

from schemas.codes import ErrorCode
from worker.adapters.parakeet.pipe import receive_batch
from worker.adapters.parakeet.protocol import Answer, Batch, Beat, Done, EngineOptions, Failed, Ready
from worker.errors import WorkerError
from worker.telemetry import configure_logging

log = structlog.get_logger()

PARENTS_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""A terminal and a platform send these to the whole process group; only the parent acts on them."""

_PR_SET_PDEATHSIG = 1
_READ_AHEAD_BYTES = 16 * 2**20  # after each piece it waits for the imports to let go of the interpreter


class Model(Protocol):
    """What the process serves; see `worker.adapters.parakeet.child_process.model`."""

    def ready(self) -> Ready:
        """What was loaded."""
        ...

    def answers(self, take: Callable[[bool], Batch | None]) -> Iterator[Done]:
        """The words of the batches taken, in order; `take(True)` waits for one. What it raises ends the process."""
        ...


def main(pipe: Connection, parent_pid: int, options: EngineOptions) -> None:
    """The program of the child: `serve` with a Parakeet model."""
    serve(pipe, parent_pid, options, _open_parakeet)


def serve(
    pipe: Connection, parent_pid: int, options: EngineOptions, open_model: Callable[[EngineOptions], Model]
) -> None:
    """Answer `Ready`, then a `Done` for every `Batch`; a `Beat` now and then; `Failed` before a death by an error.

    Ends by SIGKILL, by the end of the pipe or by an error, and never outlives the parent. Expects to be started with
    `PARENTS_SIGNALS` blocked.
    """
    _die_with(parent_pid)
    _quiet(options)
    channel = _Channel(pipe, options.heartbeat_seconds)
    with _LastWords(channel):
        model = open_model(options)
        channel.send(model.ready())
        for done in model.answers(channel.take):
            channel.send(done)


def _open_parakeet(options: EngineOptions) -> Model:
    os.environ.setdefault(
        "OMP_WAIT_POLICY", "passive"
    )  # threads that spin for work cost ten times it on a busy machine
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS then repeats itself bit for bit
    threading.Thread(target=_read_ahead, args=(options.model_name,), name="read_ahead", daemon=True).start()
    started = time.perf_counter()
    log.info("engine.loading", phase="imports")
    with _without_looking_for_garbage():
        from worker.adapters.parakeet.child_process.model import open_model  # noqa: PLC0415  0.7 GB, for this process only

    log.info("engine.runtime_imported", seconds=round(time.perf_counter() - started, 2))
    return open_model(options)


def _read_ahead(model_name: str) -> None:
    """Bring a model file into the page cache while there is nothing but imports to do; what fails here fails again."""
    if not model_name.endswith(".nemo"):
        return
    piece = bytearray(_READ_AHEAD_BYTES)
    with contextlib.suppress(OSError), Path(model_name).open("rb", buffering=0) as file:
        while file.readinto(piece):
            pass


@contextlib.contextmanager
def _without_looking_for_garbage() -> Iterator[None]:
    """What is imported stays: looking through it took a fifth of the imports, and 0.7 s each time ever after."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _die_with(parent_pid: int) -> None:
    for number in PARENTS_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PARENTS_SIGNALS)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it died before it could be watched
        os._exit(0)


def _quiet(options: EngineOptions) -> None:
    """Leave stderr to our own events, and stdout to whoever reads the parent's."""
    os.dup2(2, 1)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    configure_logging(options.log_format)


class _Channel:
    """The pipe: batches come in ahead of their time, answers and heartbeats go out; its end ends the process."""

    def __init__(self, pipe: Connection, heartbeat_seconds: float) -> None:
        self._pipe, self._heartbeat_seconds = pipe, heartbeat_seconds
        self._sending = threading.Lock()
        self._batches: queue.SimpleQueue[Batch] = queue.SimpleQueue()
        for work in (self._receive, self._beat):
            threading.Thread(target=work, name=work.__name__.strip("_"), daemon=True).start()

    def take(self, wait: bool) -> Batch | None:
        """The next batch; None where there is none and one shall not be waited for."""
        with contextlib.suppress(queue.Empty):
            return self._batches.get(block=wait)
        return None

    def send(self, answer: Answer) -> None:
        """Hand the answer to the parent; returns once it is in the pipe."""
        with _ending_with_the_pipe(), self._sending:
            self._pipe.send(answer)

    def _receive(self) -> None:
        with _ending_with_the_pipe():
            while True:
                self._batches.put(receive_batch(self._pipe))

    def _beat(self) -> None:
        while True:
            self.send(Beat())
            time.sleep(self._heartbeat_seconds)


@contextlib.contextmanager
def _ending_with_the_pipe() -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError):
        os._exit(0)  # the parent is gone, and what this process still computes is for nobody


class _LastWords:
    """Turns any error into an event, a `Failed` and exit code 1.

    What NeMo, its hub client and CUDA raise is open-ended, and after a CUDA error the process is of no more use.
    """

    def __init__(self, channel: _Channel) -> None:
        self._channel = channel

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        code = error.code if isinstance(error, WorkerError) else ErrorCode.MODEL_LOADING_ERROR
        reason = getattr(error, "reason", f"{type(error).__name__}: {error}")
        log.error("engine.process_failed", code=code.value, exc_info=error)
        self._channel.send(Failed(code=code, reason=reason))
        os._exit(1)
