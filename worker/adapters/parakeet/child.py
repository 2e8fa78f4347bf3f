"""The inference process as the worker sees it: started, spoken to through a pipe, ended by SIGKILL."""

import asyncio
import atexit
import contextlib
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import NamedTuple, TypeAlias, assert_never

from schemas.codes import ErrorCode
from worker.adapters.parakeet.protocol import (
    PARENTS_SIGNALS,
    Answer,
    Beat,
    Done,
    EngineOptions,
    Failed,
    ParentEnd,
    Ready,
)
from worker.errors import GpuNotAvailable, ModelLoadingError, WorkerError

Program: TypeAlias = Callable[[Connection, int, EngineOptions], None]
"""A function of a module: what the process runs, with its end of the pipe and the parent's process id."""

_MAIN = "worker.adapters.parakeet.child_process.main"
_STDERR = 2

_NAMES = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP"),
        *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NO_PROXY", "no_proxy"),
        *("SYSTEMROOT", "GLIBC_TUNABLES", "CI", "FORCE_COLOR", "NO_COLOR"),
    }
)
_PREFIXES = (
    *("LC_", "LD_", "DYLD_", "PYTHON", "MALLOC_", "COVERAGE_"),
    *("CUDA", "CUBLAS", "CUDNN", "NVIDIA_", "NV_", "NCCL_"),
    *("TORCH", "PYTORCH_", "TRITON_", "NEMO_", "NUMBA_", "MPL"),
    *("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "VECLIB_"),
    *("HF_", "HUGGINGFACE_", "TRANSFORMERS_"),  # where the model hub keeps its files, and whether it may be asked
)
_PROXY = re.compile(r"(?:https?|all)_proxy", re.IGNORECASE)
_SECRET = re.compile(r"TOKEN|KEY|SECRET|PASSW|CREDENTIAL|AUTH", re.IGNORECASE)


class StartedProcess(NamedTuple):
    """A child process that loads its model, and the worker's end of its pipe."""

    process: subprocess.Popen[bytes]
    pipe: Connection


def start_process(program: Program, options: EngineOptions) -> StartedProcess:
    """Start a Python process that runs the program. Raises OSError.

    It inherits stderr, the other end of the pipe, what `passed_on` lets through and a mask that blocks
    `PARENTS_SIGNALS`. multiprocessing would give it the worker's whole environment, and start a second process. Call
    this in a thread that lives as long as the worker: Linux kills the child when that thread ends.
    """
    ours, its = Pipe()
    signal.pthread_sigmask(signal.SIG_BLOCK, PARENTS_SIGNALS)
    try:
        with its:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", _MAIN, str(its.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=_STDERR,
                env=passed_on(os.environ),
                pass_fds=[its.fileno()],
            )
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PARENTS_SIGNALS)
    atexit.register(process.kill)  # it ignores SIGTERM, and a worker that ends by an error leaves none
    with contextlib.suppress(BrokenPipeError):  # it has ended already, which the reader learns from the pipe's end
        ours.send_bytes(pickle.dumps((program, os.getpid(), options)))
    return StartedProcess(process, ours)


class InferenceProcess:
    """A child process with a model, from its start to its SIGKILL. Belongs to one event loop.

    `on_done` is called on the event loop for every answered batch, in the order of `submit`, and never after `kill`.
    """

    def __init__(self, options: EngineOptions, started: StartedProcess, on_done: Callable[[Done], None]) -> None:
        self._options, self._on_done = options, on_done
        self._ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
        self._killed = False
        self.ended = asyncio.Event()
        """Set when the process has ended by itself; `failure` then is the reason."""
        self.failure: str | None = None
        self.beats = 0
        self.last_beat = time.monotonic()
        self.device_memory_bytes = 0
        self._process = started.process
        self.pid = started.process.pid
        self._end = ParentEnd(started.pipe, self._received, self._pipe_ended)
        self.submit = self._end.send

    async def until_ready(self, timeout_seconds: float) -> Ready:
        """Wait for the model. Raises `ModelLoadingError` or `GpuNotAvailable`; the caller then kills the process."""
        try:
            async with asyncio.timeout(timeout_seconds):
                return await asyncio.shield(self._ready)
        except TimeoutError as exc:
            raise ModelLoadingError(self._options.model_name, f"not ready within {timeout_seconds:.0f} s") from exc

    async def kill(self) -> None:
        """End the process, whatever state it is in, and its threads here. Idempotent."""
        self._killed = True
        self._process.kill()
        await asyncio.shield(asyncio.to_thread(self._join))

    def _received(self, answer: Answer) -> None:
        if self._killed:
            return
        match answer:
            case Beat():
                self.beats += 1
                self.last_beat = time.monotonic()
            case Ready():
                self.device_memory_bytes = answer.device_memory_bytes
                self._ready.set_result(answer)
            case Done():
                self.device_memory_bytes = answer.device_memory_bytes
                self._on_done(answer)
            case Failed():
                self._fail(answer.reason, self._start_error(answer))
            case _:
                assert_never(answer)

    def _start_error(self, answer: Failed) -> WorkerError:
        if answer.code is ErrorCode.GPU_NOT_AVAILABLE:
            return GpuNotAvailable(answer.reason)
        return ModelLoadingError(self._options.model_name, answer.reason)

    def _pipe_ended(self) -> None:
        if self._killed:
            return
        reason = self.failure or "the process was killed"
        self._fail(reason, ModelLoadingError(self._options.model_name, reason))
        self.ended.set()

    def _fail(self, reason: str, error: WorkerError) -> None:
        self.failure = reason
        if not self._ready.done():
            self._ready.set_exception(error)
            self._ready.exception()  # retrieved: a process that is ended before it is awaited needs no warning

    def _join(self) -> None:
        self._process.wait()
        self._end.close()
        atexit.unregister(self._process.kill)


def passed_on(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the part of the worker's environment that the inference process gets, with this process's import path.

    The worker's holds Deepgram's key and may hold others. The lists name what is passed on, so that a secret under a
    name not thought of stays behind. So do names that sound like a secret whatever they begin with (HF_TOKEN: log in
    with `hf auth login`, or load the model from a file), and proxies whose address holds a password.
    """
    kept = {name: value for name, value in environment.items() if _is_harmless(name, value)}
    return {**kept, "PYTHONPATH": os.pathsep.join(folder or str(Path.cwd()) for folder in sys.path)}


def _is_harmless(name: str, value: str) -> bool:
    if _SECRET.search(name):
        return False
    if _PROXY.fullmatch(name):
        return "@" not in value
    return name in _NAMES or name.startswith(_PREFIXES)
