"""Loudness of each 20 ms of audio relative to its surroundings: silence, pauses, and the cost of a cut.

Levels are whole millibels (0.01 dB) over one sample step squared, computed from exact integer sums. So every CPU finds
the same pauses, and a job resumed on another machine is cut at the same places.
"""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 16_000
FRAME_SAMPLES = 320
FRAMES_PER_SECOND = SAMPLE_RATE_HZ // FRAME_SAMPLES

Pcm = NDArray[np.int16]
"""Mono samples at `SAMPLE_RATE_HZ`, shape (samples,)."""
Levels = NDArray[np.int32]
"""Millibels, shape (bands, frames): the sound itself, and its first difference (no hum, no rumble, no offset)."""
FrameFlags = NDArray[np.bool_]
"""One flag a frame."""
Costs = NDArray[np.int32]
"""Cost of a cut at the frame's start, from 0 (a long pause) to 1000 (full voice); shape (frames,)."""

_BATCH_FRAMES = 512  # 1.3 MB of float64 at a time stays in the cache
_SMOOTHED_FRAMES = 5  # 100 ms: noise flickers less, and no syllable is shorter
_BLOCK_FRAMES = 50
_HOP_FRAMES = 25
_NEIGHBOURHOOD_BLOCKS = 61  # 30 s around
_PAUSE_HEIGHT = 300  # per mille of the way from the floor to the voice; a pause keeps below
_PAUSE_SCALES_FRAMES = (8, 16, 32, 64)  # quiet for 0.16 s up to 1.3 s; the longer a pause, the better the cut


@dataclass(frozen=True, kw_only=True, slots=True)
class SilenceRules:
    """Thresholds of silence. Conservative: only sound as steady as a noise floor is called silent."""

    # Noise alone stays within 3 dB of its own 20 % quantile; the syllables of speech at 3 dB SNR rise by 5 and more.
    headroom_millibels: int = 300
    # Recordings have no noise floor above -30 dBFS: steady sound as loud as that is kept.
    loudest_floor_millibels: int = 6000
    # Below 1.5 s steadiness cannot be measured, so only sound below -70 dBFS is silent.
    shortest_evidence_frames: int = 75
    floor_without_evidence_millibels: int = 2000
    # A flat background must not make ripples of noise look like words and pauses.
    least_range_millibels: int = 1200


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Loudness:
    """Silence, cut cost and voice of a stretch of audio, one value per frame; arrays of shape (frames,)."""

    silent: FrameFlags
    cut_cost: Costs
    in_voice: FrameFlags
    """True where no pause of at least 0.16 s is near: a cut here is forced."""


def measure(samples: Pcm, rules: SilenceRules) -> Loudness:
    """Compare every whole frame of `samples` with the 30 s around it; a partial last frame is left out."""
    levels = frame_levels(samples)
    floor, top = _surroundings(levels)
    if levels.shape[1] < rules.shortest_evidence_frames:
        floor = np.minimum(floor, rules.floor_without_evidence_millibels)
    quiet = levels <= np.minimum(floor, rules.loudest_floor_millibels) + rules.headroom_millibels
    height = (levels - floor) * 1000 // np.maximum(top - floor, rules.least_range_millibels)
    voice: Costs = np.clip(height, 0, 1000).max(axis=0).astype(np.int32)
    silent: FrameFlags = np.logical_and(*quiet)
    held = [_loudest_within(voice, width) for width in _PAUSE_SCALES_FRAMES]
    cost: Costs = np.stack(held).sum(axis=0, dtype=np.int32) // len(held)
    return Loudness(silent=silent, cut_cost=cost, in_voice=held[0] > _PAUSE_HEIGHT)


def frame_levels(samples: Pcm) -> Levels:
    """Return the level of every whole frame, smoothed over 100 ms; shape (2, frames)."""
    frames = len(samples) // FRAME_SAMPLES
    power = np.empty((2, frames))
    room = np.empty((_BATCH_FRAMES, FRAME_SAMPLES))  # reused: allocating it for each batch took twice the time
    for first in range(0, frames, _BATCH_FRAMES):
        last = min(first + _BATCH_FRAMES, frames)
        batch = room[: last - first]
        batch[:] = samples[first * FRAME_SAMPLES : last * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
        power[0, first:last] = np.einsum("fs,fs->f", batch, batch)
        # The sum of (b - a)^2 over neighbours, multiplied out: whole numbers below 2^53, so just as exact, and faster.
        neighbours = np.einsum("fs,fs->f", batch[:, 1:], batch[:, :-1])
        edges = batch[:, 0] ** 2 + batch[:, -1] ** 2
        power[1, first:last] = 2 * (power[0, first:last] - neighbours) - edges
    if not frames:
        return np.empty((2, 0), np.int32)
    padded = np.pad(power, ((0, 0), (_SMOOTHED_FRAMES // 2, _SMOOTHED_FRAMES // 2)), mode="edge")
    smooth = sliding_window_view(padded, _SMOOTHED_FRAMES, axis=1).sum(axis=2) / (_SMOOTHED_FRAMES * FRAME_SAMPLES)
    levels: Levels = np.rint(1000 * np.log10(smooth + 1)).astype(np.int32)
    return levels


def _surroundings(levels: Levels) -> tuple[Levels, Levels]:
    """Return, for each frame, the quietest second of the 30 s around it, and the usual level of the voice there.

    A steady stretch of 1.5 s contains a whole block, so its floor is its own level or a lower one.
    """
    frames = levels.shape[1]
    if not frames:
        return levels, levels
    short = max(0, _BLOCK_FRAMES - frames)
    padded = np.pad(levels, ((0, 0), (0, short)), mode="edge")
    blocks = np.sort(sliding_window_view(padded, _BLOCK_FRAMES, axis=1)[:, ::_HOP_FRAMES], axis=2)
    floor = _around(blocks[:, :, _BLOCK_FRAMES // 5]).min(axis=2)
    top = _around(blocks[:, :, -_BLOCK_FRAMES // 10]).sum(axis=2, dtype=np.int64) // _NEIGHBOURHOOD_BLOCKS
    block_of_frame = np.minimum(np.arange(frames) // _HOP_FRAMES, floor.shape[1] - 1)
    return floor[:, block_of_frame].astype(np.int32), top[:, block_of_frame].astype(np.int32)


def _around(blocks: Levels) -> Levels:
    side = _NEIGHBOURHOOD_BLOCKS // 2
    padded = np.pad(blocks, ((0, 0), (side, side)), mode="edge")
    return sliding_window_view(padded, _NEIGHBOURHOOD_BLOCKS, axis=1)


def _loudest_within(voice: Costs, width: int) -> Costs:
    """Return the maximum over `width` frames around the start of each frame."""
    if not len(voice):
        return voice
    padded = np.pad(voice, (width // 2, width // 2 - 1), mode="edge")
    loudest: Costs = sliding_window_view(padded, width).max(axis=1)
    return loudest
