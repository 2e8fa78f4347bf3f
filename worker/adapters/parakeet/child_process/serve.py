"""The frame of the inference process: it obeys only the parent, answers batches and reports its death."""

import contextlib
import ctypes
import gc
import logging
import os
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
from worker.adapters.parakeet.protocol import PARENTS_SIGNALS, Batch, ChildEnd, Done, EngineOptions, Failed, Ready
from worker.errors import WorkerError
from worker.telemetry import configure_logging

log = structlog.get_logger()

_PR_SET_PDEATHSIG = 1
_PREFETCH_BYTES = 16 * 2**20  # after each piece the thread waits until the imports release the interpreter


class Engine(Protocol):
    """A loaded model; see `worker.adapters.parakeet.child_process.pipeline`."""

    def ready(self) -> Ready:
        """Return what was loaded."""
        ...

    def answers(self, take: Callable[[bool], Batch | None]) -> Iterator[Done]:
        """Yield an answer for each batch taken, in order; `take(True)` waits for one. An error ends the process."""
        ...


def main(pipe: Connection, parent_pid: int, options: EngineOptions) -> None:
    """Serve a Parakeet model; a `Program`."""
    serve(pipe, parent_pid, options, _open_parakeet)


def serve(
    pipe: Connection, parent_pid: int, options: EngineOptions, open_engine: Callable[[EngineOptions], Engine]
) -> None:
    """Send `Ready`, then a `Done` for every `Batch`; a `Beat` now and then; `Failed` before a death by an error.

    Ends by SIGKILL, by the end of the pipe or by an error, and never outlives the parent. Must be started with
    `PARENTS_SIGNALS` blocked.
    """
    _die_with(parent_pid)
    _quiet(options)
    end = ChildEnd(pipe, options.heartbeat_seconds)
    with _LastWords(end):
        engine = open_engine(options)
        end.send(engine.ready())
        for done in engine.answers(end.take):
            end.send(done)


def _open_parakeet(options: EngineOptions) -> Engine:
    # Threads that spin while they wait for work cost ten times that work on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    threading.Thread(target=_prefetch, args=(options.model_name,), name="prefetch", daemon=True).start()
    started = time.perf_counter()
    log.info("engine.loading", phase="imports", model=options.model_name)
    with _without_garbage_collection():
        from worker.adapters.parakeet.child_process.model import open_engine  # noqa: PLC0415  torch

    log.info("engine.runtime_imported", seconds=round(time.perf_counter() - started, 2))
    return open_engine(options)


def _prefetch(model_name: str) -> None:
    """Bring a model file into the page cache while the imports run; an error here is met again when it is opened."""
    if not model_name.endswith(".nemo"):
        return
    piece = bytearray(_PREFETCH_BYTES)
    with contextlib.suppress(OSError), Path(model_name).open("rb", buffering=0) as file:
        while file.readinto(piece):
            pass


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Import without collections, which took a fifth of the time, and leave what is imported out of all later ones."""
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
    """Leave stderr to this process's events, and stdout to the parent's reader."""
    os.dup2(2, 1)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    configure_logging(options.log_format, options.log_level)


class _LastWords:
    """Turns any error into an event, a `Failed` and exit code 1: after a CUDA error the process is of no more use.

    The errors of a model runtime, its hub client and CUDA are open-ended.
    """

    def __init__(self, end: ChildEnd) -> None:
        self._end = end

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        code = error.code if isinstance(error, WorkerError) else ErrorCode.MODEL_LOADING_ERROR
        reason = getattr(error, "reason", f"{type(error).__name__}: {error}")
        defect = None if isinstance(error, WorkerError) else error
        log.error("engine.process_failed", code=code.value, reason=reason, exc_info=defect)
        self._end.send(Failed(code=code, reason=reason))
        os._exit(1)
