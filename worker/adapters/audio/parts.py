"""Decodes one long file in parts, by several concurrent ffmpeg processes, to exactly the samples of a single process.

A part is decoded with `SEAM_SECONDS` before and after it, so that codec and resampler are warmed up. It is used only if
ffmpeg reported nothing, the number of samples matches the headers, and it equals the previous part around the seam. At
the first doubt the rest comes from the serial decode, which waits in reserve: so samples and verdict on damage are
always those of the serial decode.

Only files of known length that ffmpeg seeks exactly are divided: PCM in WAV, FLAC, and MP3 with a length in its
Xing/Info header. AAC (measured: it fills in noise from a generator that runs through the whole file), Opus and Vorbis,
and so MP4, Ogg and Matroska, stay serial, since no seek reproduces their decoder's state. MP3 of a low rate, such as
the pipeline's, stays serial because dividing costs more than it saves: ffmpeg seeks in an MP3 by reading its frames
from the start, 0.3 s for 6 hours, while 5 minutes at 8 kHz are decoded in 0.1 s and at 44.1 kHz stereo in 0.5 s.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np

from worker.adapters.audio.report import CLAIM_SLACK_SECONDS, Report
from worker.ports import SAMPLE_RATE_HZ, Pcm

PART_SECONDS = 300
"""Starting ffmpeg costs 35 ms, decoding this much 100-600; and it is what one part ahead holds: 10 MB."""
SEAM_SECONDS = 1
"""Measured, what warms up: 17 samples of a resampler, 0.18 s of an MP3's bit reservoir."""

_LEAST_MP3_RATE_HZ = 32_000
_SEAM_SAMPLES = SEAM_SECONDS * SAMPLE_RATE_HZ
_CERTAIN = slice(SAMPLE_RATE_HZ // 4, -SAMPLE_RATE_HZ // 4)
"""Half-width of the range around a cut in which both parts must agree."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stretch:
    """Whole seconds of a file from `begin_second` on; None as the end means the file's."""

    begin_second: int
    end_second: int | None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Heard:
    """A stretch as it was decoded, and whether ffmpeg ended it without a complaint."""

    samples: Pcm
    clean: bool


def stretches(seconds: float, part_seconds: int) -> tuple[Stretch, ...]:
    """Return the parts of a file, without the seams; the last is one to two times as long as the others."""
    count = max(1, int(seconds / part_seconds))
    ends = (*range(part_seconds, count * part_seconds, part_seconds), None)
    return tuple(Stretch(begin_second=number * part_seconds, end_second=end) for number, end in enumerate(ends))


def divisible(report: Report) -> float | None:
    """Return the file's length in seconds if it can be divided, or else None. The report must contain the headers."""
    match report.container, report.codec:
        case ("wav", str(codec)) if codec.startswith("pcm_"):
            return report.claimed_seconds
        case ("flac", "flac"):
            return report.claimed_seconds
        case ("mp3", "mp3") if report.track and (report.track.rate_hz or 0) >= _LEAST_MP3_RATE_HZ:
            return report.claimed_seconds
        case _:
            return None


class Divided:
    """The parts of a file of that many seconds, of which `ahead` are decoded before the reader asks for them.

    `decode` gets a stretch with its seams, and the most samples that it may give.
    """

    def __init__(
        self,
        seconds: float,
        decode: Callable[[Stretch, int], Awaitable[Heard]],
        *,
        ahead: int,
        block_samples: int,
        part_seconds: int,
    ) -> None:
        self._seconds, self._decode, self._ahead, self._block_samples = seconds, decode, ahead, block_samples
        self._part_seconds = part_seconds
        self.whole = False
        """The blocks have ended, and were the whole file."""

    async def blocks(self) -> AsyncGenerator[Pcm]:
        """Yield the file's samples from the first on, up to the first doubtful part. Raises the errors of `decode`."""
        before: Pcm | None = None
        async with aclosing(self._in_order()) as parts:
            async for stretch, heard in parts:
                if not self._is_certain(stretch, heard, before):
                    return
                first = _SEAM_SAMPLES if stretch.begin_second else 0
                last = len(heard.samples) - (_SEAM_SAMPLES if stretch.end_second else 0)
                before = heard.samples[last - _SEAM_SAMPLES :].copy()
                for start in range(first, last, self._block_samples):
                    yield heard.samples[start : min(start + self._block_samples, last)]
        self.whole = True

    async def _in_order(self) -> AsyncGenerator[tuple[Stretch, Heard]]:
        waiting = deque(stretches(self._seconds, self._part_seconds))
        under_way: deque[tuple[Stretch, asyncio.Task[Heard]]] = deque()
        try:
            while waiting or under_way:
                while waiting and len(under_way) < self._ahead:
                    stretch = waiting.popleft()
                    under_way.append((stretch, asyncio.create_task(self._with_seams(stretch), name="ffmpeg.part")))
                stretch, part = under_way[0]
                heard = await part
                under_way.popleft()
                yield stretch, heard
        finally:
            for _, part in under_way:
                part.cancel()
            await asyncio.gather(*(part for _, part in under_way), return_exceptions=True)

    async def _with_seams(self, stretch: Stretch) -> Heard:
        begin = max(0, stretch.begin_second - SEAM_SECONDS)
        end = stretch.end_second and stretch.end_second + SEAM_SECONDS
        most = (end or self._seconds + CLAIM_SLACK_SECONDS) - begin
        return await self._decode(Stretch(begin_second=begin, end_second=end), round(most * SAMPLE_RATE_HZ))

    def _is_certain(self, stretch: Stretch, heard: Heard, before: Pcm | None) -> bool:
        end_second = max(0, stretch.begin_second - SEAM_SECONDS) + len(heard.samples) / SAMPLE_RATE_HZ
        if stretch.end_second is None:
            complete = abs(end_second - self._seconds) <= CLAIM_SLACK_SECONDS
        else:
            complete = end_second == stretch.end_second + SEAM_SECONDS
        return heard.clean and complete and (before is None or _joins(before, heard.samples[: 2 * _SEAM_SAMPLES]))


def _joins(before: Pcm, after: Pcm) -> bool:
    """Return True if the audio is equal and not constant: constant samples would match anywhere."""
    return bool(np.array_equal(before[_CERTAIN], after[_CERTAIN]) and np.ptp(after[_CERTAIN]))
