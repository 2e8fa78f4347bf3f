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
from worker.adapters.audio.timeline import Doubt
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


Decode = Callable[[Stretch, int], Awaitable[Pcm]]
"""Decodes a stretch with its seams, to that many samples at most. Raises `Doubt` where ffmpeg complained."""


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


async def in_parts(
    seconds: float, decode: Decode, *, ahead: int, block_samples: int, part_seconds: int
) -> AsyncGenerator[Pcm]:
    """Yield the samples of a file of that many seconds; `ahead` parts are decoded before the reader asks for them.

    Raises `Doubt` before the first doubtful part, and the errors of `decode`.
    """
    before: Pcm | None = None
    async with aclosing(_in_order(seconds, decode, ahead, part_seconds)) as parts:
        async for stretch, samples in parts:
            end_second = max(0, stretch.begin_second - SEAM_SECONDS) + len(samples) / SAMPLE_RATE_HZ
            if stretch.end_second is None:
                complete = abs(end_second - seconds) <= CLAIM_SLACK_SECONDS
            else:
                complete = end_second == stretch.end_second + SEAM_SECONDS
            if not complete or not (before is None or _joins(before, samples[: 2 * _SEAM_SAMPLES])):
                raise Doubt
            first = _SEAM_SAMPLES if stretch.begin_second else 0
            last = len(samples) - (_SEAM_SAMPLES if stretch.end_second else 0)
            before = samples[last - _SEAM_SAMPLES :].copy()
            for start in range(first, last, block_samples):
                yield samples[start : min(start + block_samples, last)]


async def _in_order(
    seconds: float, decode: Decode, ahead: int, part_seconds: int
) -> AsyncGenerator[tuple[Stretch, Pcm]]:
    def with_seams(stretch: Stretch) -> Awaitable[Pcm]:
        begin = max(0, stretch.begin_second - SEAM_SECONDS)
        end = stretch.end_second and stretch.end_second + SEAM_SECONDS
        most = (end or seconds + CLAIM_SLACK_SECONDS) - begin
        return decode(Stretch(begin_second=begin, end_second=end), round(most * SAMPLE_RATE_HZ))

    waiting = deque(stretches(seconds, part_seconds))
    under_way: deque[tuple[Stretch, asyncio.Future[Pcm]]] = deque()
    try:
        while waiting or under_way:
            while waiting and len(under_way) < ahead:
                stretch = waiting.popleft()
                under_way.append((stretch, asyncio.ensure_future(with_seams(stretch))))
            stretch, part = under_way[0]
            samples = await part
            under_way.popleft()
            yield stretch, samples
    finally:
        for _, part in under_way:
            part.cancel()
        await asyncio.gather(*(part for _, part in under_way), return_exceptions=True)


def _joins(before: Pcm, after: Pcm) -> bool:
    """Return True if the audio is equal and not constant: constant samples would match anywhere."""
    return bool(np.array_equal(before[_CERTAIN], after[_CERTAIN]) and np.ptp(after[_CERTAIN]))
