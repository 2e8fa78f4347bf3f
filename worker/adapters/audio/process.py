"""One ffmpeg process: started confined, listened to, and never left behind.

It cannot outlive the worker: its samples go to a pipe only the worker reads, so the worker's death ends it by SIGPIPE
at its next write, and a limit on CPU time ends one that never writes again. It has its own process group, so a Ctrl-C
meant for the worker does not make it end the audio early.

It gives way to the inference process, which it is there to feed: measured on 2 cores while a file was decoded, that
process waited 11 % of the time for a processor, and waits 2 % now.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from worker.adapters.audio.report import Report
from worker.errors import AudioUndecodable, EngineFailure, TranscriptionTimeout

_CHUNK_BYTES = 1 << 16
_LINE_BYTES = 1 << 12
_OPEN_FILES = 64
_BUFFER_BYTES = 1 << 20  # of the reader: with asyncio's own 64 KiB it stops and starts the reading all the time
_NICER = 10
_NICEST = 19
_ENVIRONMENT = {"LC_ALL": "C"}
_STOPPED_BY_SIGNAL = 255  # ffmpeg's status when a signal made it end early but orderly


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one decode may take."""

    max_seconds: float
    """Of audio."""
    stall_seconds: float = 60.0
    """Without a block of samples while the reader waits for one; the reader's own time does not count."""
    # Measured: 17-20 MB resident and 90 MB of private mappings; 160 MB for the index of a 12 h MP4.
    memory_bytes: int = 1 << 30

    @property
    def cpu_seconds(self) -> int:
        """A minute, and a twentieth of the longest audio: the slowest codec decodes at 250 times real time."""
        return 60 + int(self.max_seconds / 20)


class Run:
    """An ffmpeg process under way."""

    def __init__(self, process: asyncio.subprocess.Process, report: Report, limits: Limits) -> None:
        assert process.stdout  # noqa: S101  # both are pipes, `started` made them
        assert process.stderr  # noqa: S101
        self.report = report
        self._process, self._stdout, self._limits = process, process.stdout, limits
        self._headers = asyncio.Event()
        self._listener = asyncio.create_task(self._listen(process.stderr), name="ffmpeg.stderr")

    async def headers(self) -> None:
        """Return once the report holds what the file's headers say, or ffmpeg has ended. Raises as `read`."""
        async with self._progress():
            await self._headers.wait()

    async def read(self, size: int) -> bytes:
        """The next `size` bytes of output, fewer at its end. ffmpeg waits while nobody reads.

        Raises `TranscriptionTimeout` where nothing moved for `stall_seconds`: a machine at fault, not the file, for
        whose fault there is the limit on CPU time.
        """
        async with self._progress():
            try:
                return await self._stdout.readexactly(size)
            except asyncio.IncompleteReadError as end:
                return end.partial

    async def ended(self) -> int:
        """Wait for the end and for the whole report; the exit status, negative for a signal. Raises as `read`."""
        async with self._progress():
            code = await self._process.wait()
            await self._listener
        return code

    async def end(self) -> None:
        """Kill what still runs and reap it; nothing is left on return, nor after a cancellation of the wait."""
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
async def started(ffmpeg: Path, arguments: tuple[str, ...], report: Report, limits: Limits) -> AsyncIterator[Run]:
    """Run ffmpeg for the length of the context; on leaving it is gone and reaped, however the context is left."""
    process = await asyncio.create_subprocess_exec(
        ffmpeg,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=_ENVIRONMENT,
        cwd=os.sep,
        process_group=0,  # not a session: Linux may weigh those against each other, whatever their processes' niceness
        limit=_BUFFER_BYTES,
    )
    run = Run(process, report, limits)
    try:
        _confine(process.pid, limits)
        _hold_back(process.pid)
        yield run
    finally:
        await run.end()


def raise_for_end(code: int, limits: Limits) -> None:
    """Raise for an end that is more than a bad file: too much processor time, or a signal from outside."""
    if code == -signal.SIGXCPU:
        raise AudioUndecodable(f"it takes more than {limits.cpu_seconds} s of CPU time to decode")
    raise_if_stopped(code)


def raise_if_stopped(code: int) -> None:
    """Raise `EngineFailure` where a signal from outside ended ffmpeg."""
    if code in {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP, _STOPPED_BY_SIGNAL}:
        raise EngineFailure("ffmpeg", f"it was stopped from outside (status {code})")


def _confine(pid: int, limits: Limits) -> None:
    """Set the child's limits from outside: no code of ours runs between fork and exec, and no wrapper is started."""
    if sys.platform != "linux":
        return
    import resource  # noqa: PLC0415  # POSIX only

    ceilings = {
        resource.RLIMIT_DATA: (limits.memory_bytes, limits.memory_bytes),
        resource.RLIMIT_CPU: (limits.cpu_seconds, limits.cpu_seconds + 5),  # SIGXCPU tells it from other kills
        resource.RLIMIT_FSIZE: (0, 0),
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_NOFILE: (_OPEN_FILES, _OPEN_FILES),
    }
    with contextlib.suppress(ProcessLookupError):  # it has ended already
        for limit, ceiling in ceilings.items():
            resource.prlimit(pid, limit, ceiling)


def _hold_back(pid: int) -> None:
    """It shall not interrupt others when it wakes, and get less where processors are short."""
    if sys.platform != "linux":
        return
    niceness = min(_NICEST, os.getpriority(os.PRIO_PROCESS, 0) + _NICER)
    for thread in _threads(pid):
        with contextlib.suppress(OSError):  # it has ended already; or a sandbox that knows no policies
            os.setpriority(os.PRIO_PROCESS, thread, niceness)
            os.sched_setscheduler(thread, os.SCHED_BATCH, os.sched_param(0))


def _threads(pid: int) -> Iterator[int]:
    """Linux keeps both for each thread. The first one leads: those that it starts from then on take after it."""
    yield pid
    with contextlib.suppress(OSError):
        yield from (int(thread.name) for thread in Path(f"/proc/{pid}/task").iterdir())
