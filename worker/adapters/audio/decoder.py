"""`FfmpegDecoder`: files in, blocks of int16 samples out.

Times. Sample 0 is the container's first moment, the earliest start among its audio and video tracks: audio that
starts later than the video gets leading silence, a gap above 0.1 s inside becomes silence (up to some 10 minutes, what
the memory limit holds; beyond, the audio ends there, truncated), encoder delay and padding are cut where the file
states them. Exact to the sample at 16 kHz against the encoded audio: WAV, AIFF, FLAC, Ogg, and MP3 with a LAME header;
MP4 starts exactly and may end up to one AAC frame late; MP3 without a header, ADTS and Matroska keep their encoder's
delay (up to 50 ms; 1105 samples of an MP3's own rate, 138 ms at 8 kHz).

Truncated. Set when ffmpeg complained of damage or an early end, when WAV, AIFF, FLAC or MP3 headers state more than
came out, or when an Ogg file lacks its end. Not to be known, and so never set: a cut between two frames of ADTS or of
an MP3 without a Xing/Info header, and damage that happens to decode. Bytes missing inside an MP3 shift what follows.
"""

import asyncio
import contextlib
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from functools import partial
from pathlib import Path

import numpy as np
import structlog

from worker.adapters.audio import ogg
from worker.adapters.audio.command import decode_arguments, probe_arguments, source
from worker.adapters.audio.confinement import Confinement, Kernel
from worker.adapters.audio.parts import PART_SECONDS, Divided, Heard, Stretch, divisible
from worker.adapters.audio.process import Limits, Run, started
from worker.adapters.audio.report import CLAIM_SLACK_SECONDS, Report
from worker.adapters.audio.samples import INTEGERS, Encoding, encoding_for
from worker.errors import AudioTooLong, AudioUndecodable, EngineFailure
from worker.ports import SAMPLE_RATE_HZ, AudioFacts, Pcm, PcmStream

log = structlog.get_logger(__name__)

_STOPPED_BY_SIGNAL = 255  # ffmpeg's status when a signal made it end early but orderly


class FfmpegDecoder:
    """Needs a readable local file; a path that does not exist is the caller's bug and raises `FileNotFoundError`.

    Besides the port's errors both methods raise `TranscriptionTimeout` (no progress) and `EngineFailure` (somebody
    killed ffmpeg): faults of the machine, worth another attempt.

    With `parts` above 1 long files whose codec allows it are decoded in parts, at most so many at once of all files
    together, and so many of each file held ahead of their reader (10 MB a part).

    Every ffmpeg is confined by what `kernel` offers, by default the running one's means.
    """

    def __init__(
        self,
        *,
        ffmpeg: Path,
        limits: Limits,
        block_seconds: float = 5.0,
        parts: int = 1,
        part_seconds: int = PART_SECONDS,
        kernel: Kernel | None = None,
    ) -> None:
        self._ffmpeg = Confinement(path=ffmpeg, kernel=kernel or Kernel.here())
        self._limits, self._parts, self._part_seconds = limits, parts, part_seconds
        self._block_samples = round(block_seconds * SAMPLE_RATE_HZ)
        self._processors = asyncio.Semaphore(parts)

    async def probe(self, path: Path) -> AudioFacts:
        """Read the headers and decode one frame. `duration_seconds` may be ffmpeg's guess from the bit rate."""
        _refuse_empty(path)
        report = Report(source(path))
        async with started(self._ffmpeg, path, probe_arguments(path), report, self._limits) as run:
            _raise_for_end(await run.ended(), self._limits)
        if report.codec is None or report.channels is None or report.sample_rate_hz is None:
            raise AudioUndecodable(report.reason)
        return AudioFacts(
            codec=report.codec,
            sample_rate_hz=report.sample_rate_hz,
            channels=report.channels,
            duration_seconds=report.duration_seconds,
        )

    @contextlib.asynccontextmanager
    async def decode(self, path: Path) -> AsyncIterator[PcmStream]:
        """See the port. One ffmpeg runs for the length of the context, and waits while nobody iterates."""
        _refuse_empty(path)
        async with contextlib.AsyncExitStack() as stack:
            run, encoding = await self._serial_run(path, stack)
            serial = DecodedStream(run, path, encoding, self._limits, self._block_samples)
            if self._parts == 1:
                yield serial
                return
            parted = PartedStream(serial, partial(self._divided, path, encoding), least_seconds=2 * self._part_seconds)
            async with contextlib.aclosing(parted):
                yield parted

    async def _serial_run(self, path: Path, stack: contextlib.AsyncExitStack) -> tuple[Run, Encoding]:
        """Begin as with most files, and anew where the headers say that it is one of the others."""
        run = await stack.enter_async_context(self._started(path, INTEGERS))
        await run.headers()
        if (encoding := encoding_for(run.report.codec)) is not INTEGERS:
            await run.end()
            run = await stack.enter_async_context(self._started(path, encoding))
        return run, encoding

    def _started(
        self, path: Path, encoding: Encoding, begin_second: int = 0, end_second: int | None = None
    ) -> contextlib.AbstractAsyncContextManager[Run]:
        arguments = decode_arguments(path, encoding, begin_second, end_second)
        return started(self._ffmpeg, path, arguments, Report(source(path)), self._limits)

    def _divided(self, path: Path, encoding: Encoding, seconds: float) -> Divided:
        async def decode(stretch: Stretch, most_samples: int) -> Heard:
            async with self._processors:
                return await self._heard(path, encoding, stretch, most_samples)

        return Divided(
            seconds,
            decode,
            ahead=self._parts,
            block_samples=self._block_samples,
            part_seconds=self._part_seconds,
        )

    async def _heard(self, path: Path, encoding: Encoding, stretch: Stretch, most_samples: int) -> Heard:
        samples, filled = np.empty(most_samples, np.int16), 0
        block_bytes = self._block_samples * encoding.sample_bytes
        async with self._started(path, encoding, stretch.begin_second, stretch.end_second) as run:
            while (block := encoding.to_int16(await run.read(block_bytes))).size:
                if filled + block.size > most_samples:
                    return Heard(samples=samples[:filled], clean=False)
                samples[filled : filled + block.size] = block
                filled += block.size
            code = await run.ended()
        _raise_if_stopped(code)
        return Heard(samples=samples[:filled], clean=code == 0 and not run.report.damaged)


class DecodedStream:
    """The `PcmStream` of one ffmpeg process. Every block but the last has the same length."""

    def __init__(self, run: Run, path: Path, encoding: Encoding, limits: Limits, block_samples: int) -> None:
        self._run, self._path, self._encoding, self._limits = run, path, encoding, limits
        self._block_bytes = block_samples * encoding.sample_bytes
        self._samples = 0
        self._truncated = False

    @property
    def truncated(self) -> bool:
        """See the port; False until the stream has ended."""
        return self._truncated

    def __aiter__(self) -> AsyncIterator[Pcm]:
        return self

    async def __anext__(self) -> Pcm:
        if not self._samples:
            await self._refuse_too_long_by_its_header()
        block = self._encoding.to_int16(await self._run.read(self._block_bytes))
        if not block.size:
            await self._finish()
            raise StopAsyncIteration
        self._samples += block.size
        if self._seconds > self._limits.max_seconds:
            raise AudioTooLong(self._seconds, self._limits.max_seconds)
        return block

    async def seconds_to_divide(self) -> float | None:
        """The file's length where parts of it can be decoded, else None. Raises `AudioTooLong`."""
        await self._refuse_too_long_by_its_header()
        seconds = divisible(self._run.report)
        near_limit = seconds is not None and seconds > self._limits.max_seconds - CLAIM_SLACK_SECONDS
        return None if near_limit else seconds

    @property
    def _seconds(self) -> float:
        return self._samples / SAMPLE_RATE_HZ

    async def _refuse_too_long_by_its_header(self) -> None:
        """Before hours of audio are transcribed in vain; a length that ffmpeg guessed does not count."""
        await self._run.headers()
        claimed = self._run.report.claimed_seconds
        if claimed is not None and claimed > self._limits.max_seconds + CLAIM_SLACK_SECONDS:
            raise AudioTooLong(claimed, self._limits.max_seconds)

    async def _finish(self) -> None:
        code = await self._run.ended()
        _raise_for_end(code, self._limits)
        report = self._run.report
        if not self._samples:
            raise AudioUndecodable(report.reason)
        self._truncated = (
            code != 0
            or report.damaged
            or report.falls_short(self._seconds)
            or (report.container == "ogg" and ogg.ends_early(self._path))
        )


class PartedStream:
    """The `PcmStream` of a file's parts where it has any; the serial stream gives what they do not."""

    def __init__(self, serial: DecodedStream, divide: Callable[[float], Divided], *, least_seconds: float) -> None:
        self._serial, self._divide, self._least_seconds = serial, divide, least_seconds
        self._blocks = self._every_block()

    @property
    def truncated(self) -> bool:
        """See the port. Never of a file that came in parts alone: each of them was whole."""
        return self._serial.truncated

    def __aiter__(self) -> AsyncIterator[Pcm]:
        return self._blocks

    async def aclose(self) -> None:
        """End the parts under way."""
        await self._blocks.aclose()

    async def _every_block(self) -> AsyncGenerator[Pcm]:
        given = 0
        seconds = await self._serial.seconds_to_divide()
        if seconds is not None and seconds >= self._least_seconds:
            divided = self._divide(seconds)
            async with contextlib.aclosing(divided.blocks()) as blocks:
                async for block in blocks:
                    given += block.size
                    yield block
            if divided.whole:
                return
            log.info("audio.undivided", from_second=given / SAMPLE_RATE_HZ)
        async for block in self._serial:
            if fresh := max(0, block.size - given):
                yield block[-fresh:]
            given = max(0, given - block.size)


def _refuse_empty(path: Path) -> None:
    if path.stat().st_size == 0:
        raise AudioUndecodable("the file is empty")


def _raise_for_end(code: int, limits: Limits) -> None:
    """Tell an end the file caused (a status, a crash) from one it did not."""
    if code == -signal.SIGXCPU:
        raise AudioUndecodable(f"it takes more than {limits.cpu_seconds} s of CPU time to decode")
    _raise_if_stopped(code)


def _raise_if_stopped(code: int) -> None:
    if code in {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP, _STOPPED_BY_SIGNAL}:
        raise EngineFailure("ffmpeg", f"it was stopped from outside (status {code})")
