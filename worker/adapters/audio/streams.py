"""The blocks of one file: decoded in parts where it can be divided, else from beginning to end."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import structlog

from worker.adapters.audio import verdict
from worker.adapters.audio.command import ALL_BYTES, ByteRange, Way
from worker.adapters.audio.delay import trimmer_for
from worker.adapters.audio.matroska import Packet, PacketReader, to_int16
from worker.adapters.audio.mixes import Chooser, chooser_of
from worker.adapters.audio.parts import divisible
from worker.adapters.audio.process import Limits, Run, raise_for_end
from worker.adapters.audio.report import CLAIM_SLACK_SECONDS, Report
from worker.adapters.audio.timeline import COARSE_TOLERANCE_SAMPLES, Doubt, Timeline, clock_of, clock_of_file
from worker.errors import AudioTooLong, AudioUndecodable
from worker.ports import SAMPLE_RATE_HZ, Pcm

log = structlog.get_logger(__name__)

_ROUNDS_OF_THE_LOOP = 3
"""ffmpeg's messages are read, their reader wakes up and parses them."""
SILENT_PEAK = 104
"""-50 dB: a track that never reaches this is silent."""
_MOST_OTHER_TRACKS = 16


class Start(Protocol):
    """Starts ffmpeg on the file, or on some of its bytes."""

    def __call__(self, way: Way, *, byte_range: ByteRange = ALL_BYTES) -> AbstractAsyncContextManager[Run]:
        """Run ffmpeg for the length of the context."""
        ...


async def _never() -> bool:
    return False


async def laid(
    run: Run,
    way: Way,
    timeline: Timeline,
    chooser: Chooser,
    read_samples: int,
    *,
    is_joined: Callable[[], Awaitable[bool]] = _never,
) -> AsyncGenerator[Pcm]:
    """Yield the mono samples of a run on their time line, in arrays of any length, up to ffmpeg's last.

    A piece is held back until the next packet is known to follow it: a packet with a gap inside is not where it begins.

    `is_joined` returns True if the file consists of several joined pieces; it is awaited only if that matters. Raises
    the errors of `Run.read`, `Doubt` and `AudioTooLong`.
    """
    packets, held = PacketReader(), np.empty((0, way.mixes), np.int16)
    while data := await run.read(read_samples * way.frame_bytes):
        if timeline.coarse and run.report.container in verdict.JOINED:
            await _messages_parsed()  # at each packet it took 4 % of the worker's time for short FLAC
        for packet in packets.feed(data):
            if timeline.coarse and await _hides_a_change(run.report, way, timeline, packet, is_joined):
                raise Doubt
            samples = to_int16(packet.body, floats=way.floats)
            whole = len(samples) - len(samples) % way.mixes
            for piece in timeline.lay(packet.milliseconds, samples[:whole].reshape(-1, way.mixes)):
                for chosen in chooser.push(held):
                    yield chosen
                held = piece
    for chosen in chooser.push(held):
        yield chosen


async def _messages_parsed() -> None:
    """Return once the report has parsed every message that ffmpeg wrote before the bytes that were read last."""
    for _ in range(_ROUNDS_OF_THE_LOOP):
        await asyncio.sleep(0)


async def _hides_a_change(
    report: Report, way: Way, timeline: Timeline, packet: Packet, is_joined: Callable[[], Awaitable[bool]]
) -> bool:
    """Return True where a coarse packet may hold what ffmpeg made of a format that it did not expect.

    The first packet of a file that changes every moment comes late, since those before it were never full; a later one
    is not quite where its predecessor ends. In a joined Ogg or FLAC file ffmpeg decodes what follows with the first
    piece's headers, and complains.
    """
    is_late, may_be_joined = timeline.starts_late(packet.milliseconds), report.container in verdict.JOINED
    is_off = is_late or abs(timeline.missing_before(packet.milliseconds)) > COARSE_TOLERANCE_SAMPLES
    if is_off:
        await _messages_parsed()
    if is_off and (report.changes or not timeline.clock.states_times or await is_joined()):
        return True
    return (is_late and way.read_as is not None) or (may_be_joined and report.has_complaints)


class DecodedStream:
    """The `PcmStream` of a file. Every block but the last has the same length, but for the last one of a part.

    Where the file can be divided, its parts come first. What they do not give comes from one ffmpeg process after
    another, mostly of one. There are three ways, from the fastest to the one that is always right: one thread of
    ffmpeg, which `Way.read_as` asks for; packets of a second; each frame by itself. At the first doubt ffmpeg starts
    anew, the next way, and what has been given is passed over. So the verdict on damage is never that of one thread, or
    of parts: a file that came in parts alone was whole.
    """

    def __init__(
        self,
        run: Run,
        way: Way,
        path: Path,
        *,
        start: Start,
        divide: Callable[[float], AsyncGenerator[Pcm] | None],
        is_loud: Callable[[int], Awaitable[bool]],
        limits: Limits,
        block_samples: int,
    ) -> None:
        self._run, self._way, self._path, self._start, self._divide = run, way, path, start, divide
        self._is_loud, self._limits, self._block_samples = is_loud, limits, block_samples
        self._samples, self._peak = 0, 0
        self._pieces: tuple[ByteRange, ...] = ()
        self._blocks = self._every_block()
        self.truncated = self.other_tracks = False
        """See the port; False until the stream has ended."""

    def __aiter__(self) -> AsyncIterator[Pcm]:
        return self._blocks

    async def aclose(self) -> None:
        """End the processes that this stream has started itself."""
        await self._blocks.aclose()

    async def _every_block(self) -> AsyncGenerator[Pcm]:
        await self._refuse_too_long_by_its_header()
        given, parts = 0, self._parts()
        if parts is not None:
            try:
                async with aclosing(parts) as blocks:
                    async for block in blocks:
                        given += block.size
                        yield self._measured(block)
            except Doubt:
                log.info("audio.undivided", from_second=given / SAMPLE_RATE_HZ)
                parts = None
        if parts is None:
            async with aclosing(self._serial_blocks()) as blocks:
                async for block in blocks:
                    if fresh := max(0, block.size - given):
                        yield self._measured(block[-fresh:])
                    given = max(0, given - block.size)
        await self._look_at_other_tracks()

    def _parts(self) -> AsyncGenerator[Pcm] | None:
        """Return the blocks of the file's parts, if it can be decoded in parts."""
        seconds = divisible(self._run.report)
        near_limit = seconds is not None and seconds > self._limits.max_seconds - CLAIM_SLACK_SECONDS
        return None if seconds is None or near_limit or self._way.ignores_wav_size else self._divide(seconds)

    def _measured(self, block: Pcm) -> Pcm:
        self._peak = max(self._peak, int(block.max()), -int(block.min()))
        return block

    async def _serial_blocks(self) -> AsyncGenerator[Pcm]:
        kept: list[Pcm] = []
        count = 0
        async with aclosing(self._trimmed()) as pieces:
            async for piece in pieces:
                kept.append(piece)
                count += len(piece)
                while count >= self._block_samples:
                    together = np.concatenate(kept) if len(kept) > 1 else kept[0]
                    yield self._counted(together[: self._block_samples])
                    kept = [together[self._block_samples :]]
                    count -= self._block_samples
        if count:
            yield self._counted(np.concatenate(kept))

    def _counted(self, block: Pcm) -> Pcm:
        self._samples += block.size
        if self._samples > self._limits.max_seconds * SAMPLE_RATE_HZ:
            raise AudioTooLong(self._samples / SAMPLE_RATE_HZ, self._limits.max_seconds)
        return block

    async def _trimmed(self) -> AsyncGenerator[Pcm]:
        trimmer = trimmer_for(self._run.report)
        async with aclosing(self._mono()) as pieces:
            async for piece in pieces:
                for kept in trimmer.push(piece):
                    yield kept
        for kept in trimmer.finish():
            yield kept

    async def _mono(self) -> AsyncGenerator[Pcm]:
        given = 0
        ways = [("audio.several_threads", self._in_one_thread)] if self._way.read_as else []
        ways += [("audio.each_frame", self._in_long_packets), ("", self._frame_by_frame)]
        for slower, pieces_of in ways:
            passed = 0
            try:
                async with aclosing(pieces_of()) as pieces:
                    async for piece in pieces:
                        passed += len(piece)
                        if passed > given:
                            yield piece[given - passed :]
                            given = passed
            except Doubt:
                log.info(slower, from_second=given / SAMPLE_RATE_HZ)
                await self._run.end()
            else:
                return

    async def _in_one_thread(self) -> AsyncGenerator[Pcm]:
        chooser, report = chooser_of(self._path, self._way), self._run.report
        timeline = Timeline(clock_of_file(self._path, report), self._limits.max_seconds, coarse=True)
        laid_down = laid(self._run, self._way, timeline, chooser, self._block_samples, is_joined=self._is_joined)
        async with aclosing(laid_down) as pieces:
            async for piece in pieces:
                yield piece
        code = await self._run.ended()
        raise_for_end(code, self._limits, report)
        claimed, seconds = report.claimed_seconds, timeline.filled / SAMPLE_RATE_HZ
        if code != 0 or report.has_complaints or not seconds:
            raise Doubt
        if claimed is not None and abs(claimed - seconds) > CLAIM_SLACK_SECONDS:
            raise Doubt
        if await asyncio.to_thread(verdict.is_missing, self._path, report, self._way, seconds, has_gap=False):
            raise Doubt
        for piece in chooser.finish():
            yield piece

    async def _in_long_packets(self) -> AsyncGenerator[Pcm]:
        run, way = self._run, self._way
        chooser, timeline = Chooser(), self._timeline(coarse=True)
        async with AsyncExitStack() as stack:
            if way.read_as is not None:
                way = replace(way, read_as=None)
                run = await stack.enter_async_context(self._start(way))
                await run.headers()
            laid_down = laid(run, way, timeline, chooser, self._block_samples, is_joined=self._is_joined)
            async with aclosing(laid_down) as pieces:
                async for piece in pieces:
                    yield piece
            code = await run.ended()
        if run.report.changes or (run.report.has_complaints and await self._is_joined()):
            raise Doubt
        for piece in chooser.finish():
            yield piece
        await self._judge(run, code, timeline, timeline.filled)

    async def _frame_by_frame(self) -> AsyncGenerator[Pcm]:
        way = replace(self._way, each_frame=True, read_as=None)
        pieces_of_file = await self._pieces_of_file()
        chooser, filled = Chooser(), 0
        for number, byte_range in enumerate(pieces_of_file):
            timeline = self._timeline(coarse=False, follows=number > 0)
            async with self._start(way, byte_range=byte_range) as run:
                async with aclosing(laid(run, way, timeline, chooser, self._block_samples)) as pieces:
                    async for piece in pieces:
                        yield piece
                code = await run.ended()
            filled += timeline.filled
            await self._judge(run, code, timeline, filled)
        for piece in chooser.finish():
            yield piece

    async def _is_joined(self) -> bool:
        return len(await self._pieces_of_file()) > 1

    async def _pieces_of_file(self) -> tuple[ByteRange, ...]:
        """Return the pieces of a joined file, which ffmpeg must decode one by one. Reads the file once."""
        if not self._pieces:
            self._pieces = await asyncio.to_thread(verdict.joined_pieces, self._path, self._run.report.container)
        return self._pieces

    def _timeline(self, *, coarse: bool, follows: bool = False) -> Timeline:
        clock = clock_of(self._path, self._run.report)
        return Timeline(clock, self._limits.max_seconds, coarse=coarse, follows=follows)

    async def _judge(self, run: Run, code: int, timeline: Timeline, filled: int) -> None:
        """Refuse a file of which nothing came; else note whether all of it did."""
        raise_for_end(code, self._limits)
        if not filled:
            raise AudioUndecodable(run.report.reason)
        if code != 0 or timeline.dropped_loud or run.report.change_refused:
            self.truncated = True
        if not self.truncated:
            seconds = timeline.filled / SAMPLE_RATE_HZ
            self.truncated = await asyncio.to_thread(
                verdict.is_missing, self._path, run.report, self._way, seconds, has_gap=timeline.has_gap
            )

    async def _refuse_too_long_by_its_header(self) -> None:
        """Before hours of audio are transcribed in vain; a length that ffmpeg guessed does not count."""
        await self._run.headers()
        claimed = self._run.report.claimed_seconds
        if claimed is not None and claimed > self._limits.max_seconds + CLAIM_SLACK_SECONDS:
            raise AudioTooLong(claimed, self._limits.max_seconds)

    async def _look_at_other_tracks(self) -> None:
        report = self._run.report
        if self._peak >= SILENT_PEAK:
            return
        others = [number for number in range(len(report.tracks)) if number != self._way.track]
        for number in others[:_MOST_OTHER_TRACKS]:
            if await self._is_loud(number):
                log.warning("audio.other_tracks", taken=self._way.track, loud=number)
                self.other_tracks = True
                return
