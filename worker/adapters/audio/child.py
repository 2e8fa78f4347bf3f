"""A confined child process with its output on this event loop."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Self

from worker.adapters.audio.confinement import Confinement
from worker.adapters.audio.confinement.calls import in_own_thread

_ENVIRONMENT = {"LC_ALL": "C"}
_PIPE_BYTES = 1 << 18
"""Capacity of the pipe with ffmpeg's output. Linux's own 64 KiB hold two seconds of samples at most."""
_HELD_SECONDS = 1.0
"""Wait at most for a program to reach the gate; one whose C library makes no such call runs past it."""
_NICER = 10
_NICEST = 19


class Child:
    """A running process; create it with `start`. Its `stdout` and `stderr` are streams of the event loop."""

    def __init__(
        self, process: subprocess.Popen[bytes], stdout: asyncio.StreamReader, stderr: asyncio.StreamReader
    ) -> None:
        self._process, self.stdout, self.stderr = process, stdout, stderr
        self._exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        threading.Thread(target=self._reap, name="ffmpeg.reaper", daemon=True).start()

    @classmethod
    async def start(
        cls,
        arguments: tuple[str, ...],
        stdin: IO[bytes],
        confinement: Confinement,
        limit: Callable[[int], None],
        *,
        buffer_bytes: int,
    ) -> Self:
        """Start `confinement.path` with `stdin` as its input, 10 steps of niceness below this process.

        `limit` is called with its process id before the program begins, where the kernel has seccomp's listeners (5.0),
        else as it begins. Blocks the event loop for some milliseconds. Raises OSError.
        """
        if sys.platform == "win32":  # its pipes are asyncio's own kind; there is nothing to confine with
            pipe = asyncio.subprocess.PIPE
            return await asyncio.create_subprocess_exec(
                confinement.path,
                *arguments,
                stdin=stdin,
                stdout=pipe,
                stderr=pipe,
                env=_ENVIRONMENT,
                limit=buffer_bytes,
            )
        with contextlib.ExitStack() as undo:
            process, descriptor, gate = _start_confined(confinement, arguments, stdin)
            undo.callback(process.wait)
            undo.callback(process.kill)
            assert process.stdout  # noqa: S101  # both are pipes
            assert process.stderr  # noqa: S101
            for pipe in (process.stdout, process.stderr):
                undo.callback(pipe.close)
            with gate:
                if descriptor is not None:
                    await _until_held(descriptor)
                    limit(process.pid)
                else:
                    with _paused(process.pid):
                        limit(process.pid)
            _enlarge(process.stdout)
            streams = []
            for pipe in (process.stdout, process.stderr):
                stream, transport = await _stream(pipe, buffer_bytes)
                undo.callback(transport.close)
                streams.append(stream)
            undo.pop_all()
        return cls(process, *streams)

    @property
    def pid(self) -> int:
        """Its process id, which stays its own until `wait` returns."""
        return self._process.pid

    def kill(self) -> None:
        """Send SIGKILL; no-op once it has ended."""
        self._process.kill()

    async def wait(self) -> int:
        """Wait for its end. Returns the exit status, negative for a signal."""
        return await asyncio.shield(self._exit)

    def _reap(self) -> None:
        status = self._process.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._exit.get_loop().call_soon_threadsafe(self._exit.set_result, status)


def _start_confined(
    confinement: Confinement, arguments: tuple[str, ...], stdin: IO[bytes]
) -> tuple[subprocess.Popen[bytes], int | None, contextlib.ExitStack]:
    """Start the program from a thread that has taken the confinement on.

    Returns the process, the descriptor of the gate that holds the program (None where there is none), and the stack
    that closes the gate, upon which the program begins.
    """

    def start() -> tuple[subprocess.Popen[bytes], int | None, contextlib.ExitStack]:
        _hold_back()
        with contextlib.ExitStack() as gate:
            if (descriptor := confinement.take_on()) is not None:
                gate.callback(os.close, descriptor)
            return _popen(confinement.path, arguments, stdin), descriptor, gate.pop_all()

    confinement.prepare()
    return in_own_thread(start)


async def _until_held(descriptor: int) -> None:
    """Wait until the gate of this descriptor holds the program, or the program has ended.

    `subprocess` returns from within execve, whose last step restores the stack's limit of its first: a limit set in
    between would be lost.
    """
    loop, held = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, held.set)
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_HELD_SECONDS):
                await held.wait()
    finally:
        loop.remove_reader(descriptor)


@contextlib.contextmanager
def _paused(pid: int) -> Iterator[None]:
    """Stop a child that nothing holds, within its first steps: a process that is stopped has left execve."""
    if sys.platform != "linux":  # nor are there limits to set from outside
        yield
        return
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    yield
    os.kill(pid, signal.SIGCONT)


def _popen(program: Path, arguments: tuple[str, ...], stdin: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [program, *arguments],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        env=_ENVIRONMENT,
        cwd=os.sep,
        process_group=0,  # not a session: Linux may weigh those against each other, whatever their processes' niceness
    )


def _hold_back() -> None:
    """Make what this thread starts not interrupt others when it wakes, and get less where processors are short."""
    if sys.platform != "linux":
        return
    niceness = min(_NICEST, os.getpriority(os.PRIO_PROCESS, 0) + _NICER)
    with contextlib.suppress(OSError):  # a sandbox that knows no policies
        os.setpriority(os.PRIO_PROCESS, 0, niceness)  # Linux: of the calling thread alone
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _enlarge(pipe: IO[bytes]) -> None:
    """Let the pipe hold `_PIPE_BYTES`, where the system and its limit for the user allow it."""
    if sys.platform != "linux":
        return
    import fcntl  # noqa: PLC0415  # POSIX only

    with contextlib.suppress(OSError):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


async def _stream(pipe: IO[bytes], buffer_bytes: int) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    reader = asyncio.StreamReader(limit=buffer_bytes)
    connect = asyncio.get_running_loop().connect_read_pipe
    transport, _ = await connect(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    return reader, transport
