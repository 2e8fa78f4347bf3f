"""`FfmpegDecoder`: files in, blocks of int16 samples out.

Times. Sample 0 is the container's first moment, the earliest start among its audio and video tracks: audio that starts
later than the others gets leading silence. What is missing inside becomes silence of its length, however long, where
the container states times: MP4, Matroska/WebM, Ogg, MPEG-TS (up to an hour; a longer jump counts as a clock that was
set), FLV and WMA; the others cannot state a gap. Rate, channels and format may change inside a file. Encoder delay and
padding are cut where the file states them. Exact to the sample at 16 kHz against the encoded audio: WAV, W64, CAF, AU,
AIFF, FLAC, Ogg, WebM, Matroska, and MP3 with a LAME header; MP4 starts exactly, and where it is fragmented ends up to
one AAC frame late. MP3 without a header, MP2, ADTS, AC-3, and MPEG-TS, FLV, AVI and WMA without pictures start exactly
where the encoder's delay is silence (`delay.py`), else that much late: up to 46 ms; 1105 samples of an MP3's own rate,
which are 138 ms at 8 kHz. With pictures they keep it. In joined files each piece but the first keeps its own, unless it
is a chain of Ogg files.

Tracks. The first audio track that the file marks as the default is decoded, else the first. `other_tracks` says that
it is silent throughout (-50 dB) while another one is not.

Channels. Their mean, unless they cancel each other: where it is more than 20 dB below what another mix holds, that one.
A channel alone is decoded like the mix, by an ffmpeg of its own, in the file's order of channels.

Truncated. Set when ffmpeg complained of damage or an early end, when WAV, AIFF, FLAC or MP3 headers state more than
came out, when an Ogg file lacks pages or its end, or when samples of an AIFF, CAF or W64 go on behind their stated end,
which ffmpeg cannot read. Tags, zeros and the seams of joined files are no damage. Not to be known, and so never set: a
cut between two frames of ADTS, MPEG-TS or of an MP3 without a Xing/Info header, and damage that happens to decode.
Bytes missing inside an MP3 shift what follows. A WAV or RF64 whose header states no length, or less than there is, is
read to the end of the file.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from worker.adapters.audio import ogg
from worker.adapters.audio.command import (
    ALL_BYTES,
    CHANNELS_MAX,
    FILE_TIMES_OFFSET_SECONDS,
    ByteRange,
    Way,
    decode_arguments,
    probe_arguments,
    source,
)
from worker.adapters.audio.confinement import Confinement, Kernel
from worker.adapters.audio.headers import are_samples, flac_facts, samples_size, wav_facts
from worker.adapters.audio.locate import ffmpeg_version
from worker.adapters.audio.mixes import Chooser, chooser_of
from worker.adapters.audio.mpeg_audio import mp3_channels, mp3_facts
from worker.adapters.audio.parts import PART_SECONDS, Stretch, in_parts
from worker.adapters.audio.process import Limits, Run, raise_for_end, started
from worker.adapters.audio.report import Report, kind_of
from worker.adapters.audio.streams import SILENT_PEAK, DecodedStream, laid
from worker.adapters.audio.timeline import Doubt, PacketClock, Timeline
from worker.errors import AudioUndecodable
from worker.ports import SAMPLE_RATE_HZ, AudioFacts, Pcm, PcmStream

DECODING_VERSION = 3
"""Part of the decoder's identity: raised when the same ffmpeg would give other samples than before."""


_MOST_SECONDS_TO_FIRST_SAMPLES = 2.0
_LEAST_SECONDS_TO_START_AGAIN = 60.0
"""Starting costs 15 to 25 ms of processor time; one thread saves 0.3 to 0.8 ms a second of audio."""
_MOST_PROVEN = 100


class FfmpegDecoder:
    """Decoder of local files by ffmpeg. A missing file is the caller's bug and raises `FileNotFoundError`.

    Besides the port's errors both methods raise `TranscriptionTimeout` (no progress) and `EngineFailure` (ffmpeg was
    killed from outside): faults of the machine, for which another attempt makes sense.

    With `parts` above 1, long files whose codec allows it are decoded in parts: at most `parts` at once over all files,
    and at most `parts` of each file ahead of their reader (10 MB a part).

    Every ffmpeg is confined by the mechanisms of `kernel`, by default the running one. Without `one_thread` no file is
    read by a single thread of ffmpeg, which gives the same samples in about twice the processor time.
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
        one_thread: bool = True,
    ) -> None:
        self._ffmpeg = Confinement(path=ffmpeg, kernel=kernel or Kernel.here())
        self._limits, self._parts, self._part_seconds = limits, parts, part_seconds
        self._one_thread = one_thread
        self._block_samples = round(block_seconds * SAMPLE_RATE_HZ)
        self._processors = asyncio.Semaphore(parts)
        self._identity: str | None = None
        self._proven: dict[tuple[Path, int, int, int], Way] = {}
        """The way of files that were probed, of which it is proven that their codec is allowed."""

    async def identity(self) -> str:
        """See the port. Starts ffmpeg at the first call."""
        if self._identity is None:
            self._identity = f"ffmpeg {await ffmpeg_version(self._ffmpeg.path)} / {DECODING_VERSION}"
        return self._identity

    async def probe(self, path: Path) -> AudioFacts:
        """Read the headers; decode one frame where they are not those of a FLAC, WAV or MP3 file that states all.

        `duration_seconds` is what the headers state, never a guess.
        """
        way = _first_way(path)
        if stated := flac_facts(path) or wav_facts(path) or mp3_facts(path):
            return stated
        report, ended_well = await self._probed(path, way)
        if (better := way.suited_to(report)).track != way.track:
            report, ended_well = await self._probed(path, better)
        if report.codec is None or report.channels is None or report.sample_rate_hz is None:
            raise AudioUndecodable(report.reason)
        if ended_well:
            self._proven[_state_of(path)] = better
            while len(self._proven) > _MOST_PROVEN:
                del self._proven[next(iter(self._proven))]
        return AudioFacts(
            codec=report.codec,
            sample_rate_hz=report.sample_rate_hz,
            channels=report.channels,
            duration_seconds=report.claimed_seconds,
        )

    @contextlib.asynccontextmanager
    async def decode(self, path: Path, *, channel: int | None = None) -> AsyncIterator[PcmStream]:
        """See the port. ffmpeg runs for the length of the context, and waits while the stream is not read."""
        async with contextlib.AsyncExitStack() as stack:
            run, way = await self._first_run(path, channel, stack)
            stream = DecodedStream(
                run,
                way,
                path,
                start=partial(self._started, path),
                divide=partial(self._divided, path, way),
                is_loud=partial(self._is_loud, path),
                limits=self._limits,
                block_samples=self._block_samples,
            )
            yield await stack.enter_async_context(contextlib.aclosing(stream))

    async def _probed(self, path: Path, way: Way) -> tuple[Report, bool]:
        """Return what ffmpeg reports of one frame, and whether it could decode it."""
        report = _report(path, way)
        async with started(self._ffmpeg, path, probe_arguments(path, way), report, self._limits) as run:
            raise_for_end(code := await run.ended(), self._limits)
        return report, code == 0

    async def _first_run(self, path: Path, channel: int | None, stack: contextlib.AsyncExitStack) -> tuple[Run, Way]:
        """Begin as with most files, and anew where the headers say that it is one of the others.

        One thread of ffmpeg decodes whatever codec a file names, so it may begin first only where the container leaves
        no choice. Elsewhere the first samples of ffmpeg's own input prove that the codec is one that is allowed, be it
        in a probe, after which nothing is begun anew.
        """
        way = replace(self._proven.get(_state_of(path)) or _first_way(path), only=channel)
        if not self._one_thread:
            way = replace(way, read_as=None)
        if way.read_as in {None, "ogg"} and (kept := await asyncio.to_thread(ogg.without_repeats, path)):
            way = replace(way, kept=kept, read_as=None)
        run = await stack.enter_async_context(self._started(path, way))
        await run.headers()
        suited = way.suited_to(run.report)
        if suited.read_as and not way.read_as and not await self._may_be_one_thread(run):
            suited = replace(suited, read_as=None)
        track = run.report.tracks[suited.track] if suited.track < len(run.report.tracks) else None
        if track is not None and track.channels > CHANNELS_MAX:
            raise AudioUndecodable(f"it has {track.channels} channels, of at most {CHANNELS_MAX} that are read")
        if suited != way:
            await run.end()
            run = await stack.enter_async_context(self._started(path, suited))
            await run.headers()
        return run, suited

    async def _may_be_one_thread(self, run: Run) -> bool:
        """Return True where starting ffmpeg again pays, and its first samples are there.

        Of a file that changes every moment none come before its end, so the wait is short.
        """
        if sys.platform == "win32":  # its output cannot be looked at without taking from it
            return False
        if not self._one_thread or (run.report.duration_seconds or 0.0) < _LEAST_SECONDS_TO_START_AGAIN:
            return False
        try:
            async with asyncio.timeout(_MOST_SECONDS_TO_FIRST_SAMPLES):
                return await run.begins()
        except TimeoutError:
            return False

    def _started(
        self,
        path: Path,
        way: Way,
        *,
        seconds: Stretch | None = None,
        byte_range: ByteRange = ALL_BYTES,
    ) -> contextlib.AbstractAsyncContextManager[Run]:
        begin, end = (seconds.begin_second, seconds.end_second) if seconds else (0, None)
        arguments = decode_arguments(path, way, begin_second=begin, end_second=end, byte_range=byte_range)
        return started(self._ffmpeg, path, arguments, _report(path, way), self._limits)

    async def _is_loud(self, path: Path, track: int) -> bool:
        """Return True where a track holds more than silence; decode it up to the first sound."""
        way = Way(track=track, each_frame=True)
        timeline = Timeline(PacketClock(), self._limits.max_seconds, coarse=False, follows=True)
        chooser = Chooser()
        async with self._started(path, way) as run:
            pieces = laid(run, way, timeline, chooser, self._block_samples)
            async with contextlib.aclosing(pieces):
                async for piece in pieces:
                    if int(piece.max()) >= SILENT_PEAK:
                        return True
        return any(int(piece.max()) >= SILENT_PEAK for piece in chooser.finish())

    def _divided(self, path: Path, way: Way, seconds: float) -> AsyncGenerator[Pcm] | None:
        """Return the blocks of a file of this length from its parts, if it is long enough for several."""
        if self._parts == 1 or seconds < 2 * self._part_seconds:
            return None

        async def decode(part: Stretch, most_samples: int) -> Pcm:
            async with self._processors:
                return await self._part(path, way, part, most_samples)

        return in_parts(
            seconds,
            decode,
            ahead=self._parts,
            block_samples=self._block_samples,
            part_seconds=self._part_seconds,
        )

    async def _part(self, path: Path, way: Way, part: Stretch, most_samples: int) -> Pcm:
        samples, filled = np.empty(most_samples, np.int16), 0
        chooser = chooser_of(path, way, part.begin_second)
        zero_seconds = FILE_TIMES_OFFSET_SECONDS + way.start_seconds + part.begin_second if way.read_as else 0.0
        clock = PacketClock(states_times=False, zero_seconds=zero_seconds)
        timeline = Timeline(clock, self._limits.max_seconds, coarse=True)
        async with self._started(path, way, seconds=part) as run:
            async with contextlib.aclosing(laid(run, way, timeline, chooser, self._block_samples)) as pieces:
                async for piece in pieces:
                    if filled + piece.size > most_samples:
                        raise Doubt
                    samples[filled : filled + piece.size] = piece
                    filled += piece.size
            code = await run.ended()
        raise_for_end(code, self._limits, run.report if way.read_as else None)
        if code != 0 or run.report.has_complaints:
            raise Doubt
        for piece in chooser.finish():
            rest = piece[: most_samples - filled]
            samples[filled : filled + rest.size] = rest
            filled += rest.size
        return samples[:filled]


def _state_of(path: Path) -> tuple[Path, int, int, int]:
    """Return the facts by which a file differs from another one that takes its place."""
    state = path.stat()
    return path, state.st_ino, state.st_size, state.st_mtime_ns


def _first_way(path: Path) -> Way:
    """Return the way that the first bytes suggest. Raises `AudioUndecodable` where there are none.

    Where the headers ask for another one, ffmpeg must be started again.
    """
    if path.stat().st_size == 0:
        raise AudioUndecodable("the file is empty")
    if size := samples_size(path):
        size.check()
        if not size.wav:
            return Way(states_no_length=size.is_unknown, lacks_samples=size.is_less and not size.is_unknown)
        way = Way(channels=_likely(size.wav.channels), ignores_wav_size=size.is_unknown or size.is_less)
        if codec := size.wav.padded_codec:
            way = replace(way, padded_codec=codec, states_no_length=True, lacks_samples=size.is_cut)
        elif size.is_plain_wav:
            way = replace(way, read_as="wav", samples=size if are_samples(path, size) else None)
        return way
    if channels := mp3_channels(path):
        return Way(channels=channels, read_as="mp3")
    if facts := flac_facts(path):
        return Way(channels=_likely(facts.channels), read_as="flac" if facts.channels in {1, 2} else None)
    return Way()


def _likely(channels: int) -> int:
    """Return the channels that ffmpeg will name; layouts of more than two are known from its report only."""
    return 2 if channels == 2 else 1  # noqa: PLR2004 - stereo


def _report(path: Path, way: Way) -> Report:
    return Report(source(path), track=way.track, kind=kind_of(path), states_length=not way.states_no_length)
