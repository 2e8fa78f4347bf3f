"""`FfmpegDecoder`: files in, blocks of int16 samples out.

Times. Sample 0 is the container's first moment, the earliest start among its audio and video tracks: audio that
starts later than the video gets leading silence, a gap above 0.1 s inside becomes silence (up to some 50 minutes, what
the memory limit holds; beyond, the audio ends there, truncated), encoder delay and padding are cut where the file
states them. Exact to the sample at 16 kHz against the encoded audio: WAV, AIFF, FLAC, Ogg, and MP3 with a LAME header;
MP4 starts exactly and may end up to one AAC frame late; MP3 without a header, ADTS and Matroska keep their encoder's
delay (up to 50 ms; 1105 samples of an MP3's own rate, 138 ms at 8 kHz).

Truncated. Set when ffmpeg complained of damage or an early end, when WAV, AIFF, FLAC or MP3 headers state more than
came out, or when an Ogg file lacks its end. Not to be known, and so never set: a cut between two frames of ADTS or of
an MP3 without a Xing/Info header, and damage that happens to decode. Bytes missing inside an MP3 shift what follows.
"""

import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path

from worker.adapters.audio import ogg
from worker.adapters.audio.command import decode_arguments, probe_arguments, source
from worker.adapters.audio.process import Limits, Run, started
from worker.adapters.audio.report import CLAIM_SLACK_SECONDS, Report
from worker.adapters.audio.samples import FLOAT_BYTES, to_int16
from worker.errors import AudioTooLong, AudioUndecodable, EngineFailure
from worker.ports import SAMPLE_RATE_HZ, AudioFacts, Pcm

_STOPPED_BY_SIGNAL = 255  # ffmpeg's status when a signal made it end early but orderly


class FfmpegDecoder:
    """Needs a readable local file; a path that does not exist is the caller's bug and raises `FileNotFoundError`.

    Besides the port's errors both methods raise `TranscriptionTimeout` (no progress) and `EngineFailure` (somebody
    killed ffmpeg): faults of the machine, worth another attempt.
    """

    def __init__(self, *, ffmpeg: Path, limits: Limits, block_seconds: float = 5.0) -> None:
        self._ffmpeg, self._limits = ffmpeg, limits
        self._block_bytes = round(block_seconds * SAMPLE_RATE_HZ) * FLOAT_BYTES

    async def probe(self, path: Path) -> AudioFacts:
        """Read the headers and decode one frame. `duration_seconds` may be ffmpeg's guess from the bit rate."""
        _refuse_empty(path)
        report = Report(source(path))
        async with started(self._ffmpeg, probe_arguments(path), report, self._limits) as run:
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
    async def decode(self, path: Path) -> AsyncIterator["DecodedStream"]:
        """See the port. One ffmpeg runs for the length of the context, and waits while nobody iterates."""
        _refuse_empty(path)
        async with started(self._ffmpeg, decode_arguments(path), Report(source(path)), self._limits) as run:
            yield DecodedStream(run, path, self._limits, self._block_bytes)


class DecodedStream:
    """The `PcmStream` of one ffmpeg process. Every block but the last has the same length."""

    def __init__(self, run: Run, path: Path, limits: Limits, block_bytes: int) -> None:
        self._run, self._path, self._limits, self._block_bytes = run, path, limits, block_bytes
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
        block = to_int16(await self._run.read(self._block_bytes))
        if not block.size:
            await self._finish()
            raise StopAsyncIteration
        self._samples += block.size
        if self._seconds > self._limits.max_seconds:
            raise AudioTooLong(self._seconds, self._limits.max_seconds)
        return block

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


def _refuse_empty(path: Path) -> None:
    if path.stat().st_size == 0:
        raise AudioUndecodable("the file is empty")


def _raise_for_end(code: int, limits: Limits) -> None:
    """Tell an end the file caused (a status, a crash) from one it did not."""
    if code == -signal.SIGXCPU:
        raise AudioUndecodable(f"it takes more than {limits.cpu_seconds} s of CPU time to decode")
    if code in {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP, _STOPPED_BY_SIGNAL}:
        raise EngineFailure("ffmpeg", f"it was stopped from outside (status {code})")
