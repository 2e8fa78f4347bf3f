"""One ffmpeg process: started confined, its output read, and never left behind.

ffmpeg cannot outlive the worker: its samples go to a pipe that only the worker reads, so the worker's death ends it by
SIGPIPE at its next write, and a limit on CPU time ends one that never writes again. It has its own process group, so
that a Ctrl-C meant for the worker does not end the audio early.

It runs at a lower priority than the inference process, which it feeds: measured on 2 cores while a file was decoded,
that process waited 11 % of the time for a processor at equal priority, and 2 % so.
"""

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from worker.adapters.audio.child import Child
from worker.adapters.audio.confinement import Confinement
from worker.adapters.audio.report import Report
from worker.errors import AudioUndecodable, EngineFailure, TranscriptionTimeout

_CHUNK_BYTES = 1 << 16
_LINE_BYTES = 1 << 12
_OPEN_FILES = 64
# What honest files never come near, and without which there would be kinds of memory that nothing counts: measured are
# 0.73 GiB of addresses (page tables), 132 KiB of stack and 8 threads. Root alone may start any number.
_ADDRESSES_BYTES = 4 << 30
_STACK_BYTES = 8 << 20
_THREADS_OF_THE_USER = 4096
_STOPPED_BY_SIGNAL = 255  # ffmpeg's status when a signal made it end early but orderly


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """The resources of one decode."""

    max_seconds: float
    """Longest audio accepted, in seconds."""
    stall_seconds: float = 60.0
    """Without a block of samples while the reader waits for one; the reader's own time does not count."""
    memory_bytes: int = 384 << 20
    """The limit on private memory, which with a seccomp filter is all that ffmpeg can take.

    Measured with ffmpeg 7.0.2 and 9.0.2: 75-112 MiB, of which 5-30 are resident; for the index of 12 h of AAC in an MP4
    159-183, in fragments of a second 154.
    """

    @property
    def cpu_seconds(self) -> int:
        """A minute, and a twentieth of the longest audio: the slowest codec decodes at 250 times real time."""
        return 60 + int(self.max_seconds / 20)


class Run:
    """A running ffmpeg process."""

    def __init__(self, process: Child, report: Report, limits: Limits) -> None:
        self.report = report
        self._process, self._stdout, self._limits = process, process.stdout, limits
        self._headers = asyncio.Event()
        self._listener = asyncio.create_task(self._listen(process.stderr), name="ffmpeg.stderr")

    async def headers(self) -> None:
        """Return once the report holds what the file's headers say, or ffmpeg has ended. Raises as `read`."""
        async with self._progress():
            await self._headers.wait()

    async def read(self, size: int) -> bytes:
        """Return the next `size` bytes of output, fewer at its end. ffmpeg waits while its output is not read.

        Raises `TranscriptionTimeout` after `stall_seconds` without progress: a fault of the machine. A file that takes
        too long meets the limit on CPU time.
        """
        async with self._progress():
            try:
                return await self._stdout.readexactly(size)
            except asyncio.IncompleteReadError as end:
                return end.partial

    async def begins(self) -> bool:
        """Return True once there is output to read, False where it ends without any. Raises as `read`."""
        async with self._progress():
            return bool(await self._stdout.peek())

    async def ended(self) -> int:
        """Wait for the end and the whole report. Returns the exit status, negative for a signal. Raises as `read`."""
        async with self._progress():
            code = await self._process.wait()
            await self._listener
        return code

    async def end(self) -> None:
        """Kill and reap the process; it is gone on return, and after a cancellation of the wait as well."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await asyncio.shield(asyncio.gather(self._stdout.read(), self._listener, self._process.wait()))

    @contextlib.asynccontextmanager
    async def _progress(self) -> AsyncIterator[None]:
        seconds = self._limits.stall_seconds
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError as exc:
            raise TranscriptionTimeout("ffmpeg", seconds) from exc

    async def _listen(self, stderr: asyncio.StreamReader) -> None:
        rest = b""
        while chunk := await stderr.read(_CHUNK_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            rest = rest[:_LINE_BYTES]
            for line in lines:
                self.report.feed(line[:_LINE_BYTES].decode("utf-8", "replace"))
            if self.report.headers_read:
                self._headers.set()
        self._headers.set()


@contextlib.asynccontextmanager
async def started(
    confinement: Confinement, path: Path, arguments: tuple[str, ...], report: Report, limits: Limits
) -> AsyncIterator[Run]:
    """Run ffmpeg on a file for the length of the context; on leaving it is gone and reaped, however that comes about.

    ffmpeg inherits the file open for reading as its descriptor 0. Raises OSError where it cannot be started.
    """
    with path.open("rb", buffering=0) as audio:
        process = await Child.start(arguments, audio, confinement, partial(_limit, limits))
    run = Run(process, report, limits)
    try:
        yield run
    finally:
        await run.end()


def raise_for_end(code: int, limits: Limits, report: Report | None = None) -> None:
    """Raise for an end that is more than a bad file: too much processor time, or `EngineFailure` for a signal.

    Some decoders' errors share ffmpeg's status after a signal. With `report`, it counts as an error's where one is
    reported, as none is after a signal.
    """
    if code == -signal.SIGXCPU:
        raise AudioUndecodable(f"it takes more than {limits.cpu_seconds} s of CPU time to decode")
    if code == _STOPPED_BY_SIGNAL and report is not None and report.has_complaints:
        return
    if code in {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP, _STOPPED_BY_SIGNAL}:
        raise EngineFailure("ffmpeg", f"it was stopped from outside (status {code})")


def _limit(limits: Limits, pid: int) -> None:
    """Set the child's limits from outside: these are a process's, so the thread that starts it cannot take them on."""
    if sys.platform != "linux":
        return
    import resource  # noqa: PLC0415  # POSIX only

    ceilings = {
        resource.RLIMIT_DATA: (limits.memory_bytes, limits.memory_bytes),
        resource.RLIMIT_AS: (_ADDRESSES_BYTES, _ADDRESSES_BYTES),
        resource.RLIMIT_STACK: (_STACK_BYTES, _STACK_BYTES),
        resource.RLIMIT_NPROC: (_THREADS_OF_THE_USER, _THREADS_OF_THE_USER),
        resource.RLIMIT_CPU: (limits.cpu_seconds, limits.cpu_seconds + 5),  # SIGXCPU distinguishes it from other kills
        resource.RLIMIT_FSIZE: (0, 0),
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_NOFILE: (_OPEN_FILES, _OPEN_FILES),
    }
    with contextlib.suppress(ProcessLookupError):  # it has ended already
        for limit, ceiling in ceilings.items():
            _, inherited = resource.prlimit(pid, limit)
            most = ceiling[1] if inherited == resource.RLIM_INFINITY else inherited  # which cannot be raised
            resource.prlimit(pid, limit, (min(ceiling[0], most), min(ceiling[1], most)))
