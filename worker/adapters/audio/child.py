"""A confined child process, with its messages on this event loop."""

import asyncio
import contextlib
import io
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import IO, Self

from worker.adapters.audio.confinement import Confinement
from worker.adapters.audio.confinement.calls import in_own_thread

_ENVIRONMENT = {"LC_ALL": "C"}
_PIPE_BYTES = 1 << 18
"""Capacity of the pipe with ffmpeg's output. Linux's own 64 KiB hold two seconds of samples at most."""
_BUFFER_BYTES = 1 << 16
_ALL, _PEEK = -1, 0
_HELD_SECONDS = 1.0
"""Wait at most for a program to reach the gate; one whose C library makes no such call runs past it."""
_NICER = 10
_NICEST = 19


class Output:
    """The output of a process, read by a thread of its own when asked for: whole blocks, whatever is written at once.

    A stream of the event loop is woken at every write, and copies thrice. At the end the thread reaps the process.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._requests: queue.SimpleQueue[tuple[int, asyncio.Future[bytes]]] = queue.SimpleQueue()
        self._end: asyncio.Future[bytes] | None = None
        threading.Thread(target=self._serve, name="ffmpeg.output", daemon=True).start()

    async def readexactly(self, size: int) -> bytes:
        """Return the next `size` bytes. Raises `asyncio.IncompleteReadError` with what is left at the end."""
        data = await self._asked(size)
        if len(data) < size:
            raise asyncio.IncompleteReadError(data, size)
        return data

    async def peek(self) -> bytes:
        """Return the next byte once there is one, b"" at the end. It stays unread, also where the wait is cancelled."""
        return await self._asked(_PEEK)

    async def read(self) -> bytes:
        """Return what is left, once the process has been reaped; the same at every call."""
        if self._end is None:
            self._end = self._asked(_ALL)
        return await asyncio.shield(self._end)

    def _asked(self, size: int) -> asyncio.Future[bytes]:
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._requests.put((size, future))
        return future

    def _serve(self) -> None:
        assert isinstance(self._process.stdout, io.BufferedReader)  # noqa: S101  # a pipe
        size = _PEEK
        with self._process.stdout as pipe:
            while size != _ALL:
                size, future = self._requests.get()
                data = pipe.peek(1)[:1] if size == _PEEK else pipe.read(size)
                if size == _ALL:
                    self._process.wait()
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    future.get_loop().call_soon_threadsafe(_deliver, future, data)


def _deliver(future: asyncio.Future[bytes], data: bytes) -> None:
    if not future.done():
        future.set_result(data)


class Child:
    """A running process; create it with `start`. Its `stderr` is a stream of the event loop."""

    def __init__(self, process: subprocess.Popen[bytes], stdout: Output, stderr: asyncio.StreamReader) -> None:
        self._process, self.stdout, self.stderr = process, stdout, stderr

    @classmethod
    async def start(
        cls,
        arguments: tuple[str, ...],
        stdin: IO[bytes],
        confinement: Confinement,
        limit: Callable[[int], None],
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
            stderr = asyncio.StreamReader()
            protocol = asyncio.StreamReaderProtocol(stderr)
            transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, process.stderr)
            undo.callback(transport.close)
            child = cls(process, Output(process), stderr)
            undo.pop_all()
        return child

    def kill(self) -> None:
        """Send SIGKILL; no-op once it has ended."""
        self._process.kill()

    async def wait(self) -> int:
        """Wait for its end, and pass over its output. Returns the exit status, negative for a signal."""
        await self.stdout.read()
        return self._process.wait()


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
            process = subprocess.Popen(
                [confinement.path, *arguments],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=_BUFFER_BYTES,
                env=_ENVIRONMENT,
                cwd=os.sep,
                process_group=0,  # Linux may weigh sessions against each other, whatever their processes' niceness
            )
            return process, descriptor, gate.pop_all()

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
