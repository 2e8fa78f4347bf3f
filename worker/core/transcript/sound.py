"""Frames of 20 ms: silence and pauses by their loudness, and speech by its voice.

Loudness is relative to the surroundings. Levels are whole millibels (0.01 dB) over one sample step squared, from exact
integer sums: every CPU finds the same pauses, so a job resumed on another machine is cut at the same places.

Speech, as opposed to music and noise, is voiced sound in short runs whose pitch glides: a held note does not glide, a
hum does not stop, and noise has no pitch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from worker.ports import SAMPLE_RATE_HZ, Pcm

FRAME_SAMPLES = 320
FRAMES_PER_SECOND = SAMPLE_RATE_HZ // FRAME_SAMPLES

Levels = NDArray[np.int32]
"""Millibels, shape (bands, frames): the sound itself, and its first difference (no hum, no rumble, no offset)."""
FrameFlags = NDArray[np.bool_]
"""One flag a frame."""
Costs = NDArray[np.int32]
"""Cost of a cut at the frame's start, from 0 (a long pause) to 1000 (full voice); shape (frames,)."""
Values = NDArray[np.float64]
"""One value, or one row, a frame."""

_BATCH_FRAMES = 512  # 1.3 MB of float64 at a time stays in the cache
_SMOOTHED_FRAMES = 5  # 100 ms: noise flickers less, and no syllable is shorter
_BLOCK_FRAMES = 50
_HOP_FRAMES = 25
_NEIGHBOURHOOD_BLOCKS = 61  # 30 s around
_PAUSE_HEIGHT = 300  # per mille of the way from the floor to the voice; a pause keeps below
_PAUSE_SCALES_FRAMES = (8, 16, 32, 64)  # quiet for 0.16 s up to 1.3 s; the longer a pause, the better the cut

# Only sound as steady as a noise floor is silent. Noise alone stays within 3 dB of its own 20 % quantile; the syllables
# of speech at 3 dB SNR rise by 5 and more.
_HEADROOM = 300
# Recordings have no noise floor above -30 dBFS: steady sound as loud as that is kept.
_LOUDEST_FLOOR = 6000
# Below 1.5 s steadiness cannot be measured, so only sound below -70 dBFS is silent.
_SHORTEST_EVIDENCE_FRAMES = 75
_FLOOR_WITHOUT_EVIDENCE = 2000
# A flat background must not make ripples of noise look like words and pauses.
_LEAST_RANGE = 1200

_RATE_HZ = SAMPLE_RATE_HZ // 2  # voices are below 400 Hz: every second sample is enough
_HOP = FRAME_SAMPLES // 2
_LENGTH = 2 * _HOP  # 40 ms hold three periods of the deepest voice
_FFT = 1024
_LAGS = slice(_RATE_HZ // 400, _RATE_HZ // 70)
_VOICED = 0.6  # of perfect periodicity; vowels reach 0.8, noise 0.4
_AUDIBLE_DECIBELS = 30  # below the loudest is background
_RUN_FRAMES = (3, 60)  # a syllable to a breathless phrase: 60 ms to 1.2 s
_LEAST_GLIDE = 0.008  # relative change of pitch a frame; an instrument holds a note within 0.3 %
_MOST_GLIDE = 0.15  # more is a jump to another voice or an octave error
_LEAST_SWAY = 0.003  # a flat voice sways more than this, most instruments do not
_PHRASE_PAUSE_FRAMES = 50  # runs less than a second apart belong to one phrase
_SHORT_PHRASE_SECONDS = 3.0  # a longer one shows how much of it glides
_LEAST_VOICE_SECONDS = 0.4  # two syllables
_LONE_RUN_SECONDS = 0.55  # one run alone may be a note
_LEAST_GLIDING_SHARE = 0.15  # speech glides for half of its time, music for 9 % at the most of what was measured
_MOST_STEADY_SHARE = 0.5  # of the voiced time


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Loudness:
    """A stretch of audio, frame by frame; arrays of shape (frames,)."""

    silent: FrameFlags
    cut_cost: Costs
    in_voice: FrameFlags
    """True where no pause of at least 0.16 s is near: a cut here is forced."""


def measure(samples: Pcm) -> Loudness:
    """Compare every whole frame of `samples` with the 30 s around it; a partial last frame is left out."""
    levels = frame_levels(samples)
    floor, top = _surroundings(levels)
    if levels.shape[1] < _SHORTEST_EVIDENCE_FRAMES:
        floor = np.minimum(floor, _FLOOR_WITHOUT_EVIDENCE)
    quiet = levels <= np.minimum(floor, _LOUDEST_FLOOR) + _HEADROOM
    height = (levels - floor) * 1000 // np.maximum(top - floor, _LEAST_RANGE)
    voice: Costs = np.clip(height, 0, 1000).max(axis=0).astype(np.int32)
    silent: FrameFlags = np.logical_and(*quiet)
    held = [_loudest_within(voice, width) for width in _PAUSE_SCALES_FRAMES]
    cost: Costs = np.stack(held).sum(axis=0, dtype=np.int32) // len(held)
    return Loudness(silent=silent, cut_cost=cost, in_voice=held[0] > _PAUSE_HEIGHT)


def stretches(flags: FrameFlags) -> NDArray[np.int64]:
    """Return the first frame, and one past the last, of each run of True; shape (runs, 2)."""
    return np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])))).reshape(-1, 2)


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
        # The sum of (b - a)^2 over neighbours, multiplied out: as exact, being whole numbers below 2^53, and faster.
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

    A steady stretch of 1.5 s holds a whole block, so no floor is above its level.
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


def talking_seconds(samples: Pcm) -> float:
    """Return the seconds of voiced sound in runs whose pitch glides; speech is voiced for about half of its time."""
    return _swaying_seconds(_runs(samples), _LEAST_GLIDE)


def phrases(samples: Pcm) -> tuple[tuple[float, float], ...]:
    """Return begin and end, in seconds, of each stretch of voiced sound that is speech.

    More sensitive than `talking_seconds`: 0.4 s of voice are enough, in a flat voice too.
    """
    runs = _runs(samples)
    found = list(_grouped(runs))
    seconds = sum((phrase[-1].end - phrase[0].begin) / FRAMES_PER_SECOND for phrase in found)
    gliding = sum(_swaying_seconds(phrase, _LEAST_GLIDE) for phrase in found)
    if seconds > _SHORT_PHRASE_SECONDS and gliding < _LEAST_GLIDING_SHARE * seconds:
        return ()
    spoken = [phrase for phrase in found if _is_speech(phrase)]
    if not spoken and _is_speech(runs):
        spoken = found  # single words with long pauses between them
    return tuple((phrase[0].begin / FRAMES_PER_SECOND, phrase[-1].end / FRAMES_PER_SECOND) for phrase in spoken)


@dataclass(frozen=True, slots=True)
class _Run:
    """Voiced frames `[begin, end)` without a break; `sway` is the median relative change of pitch a frame."""

    begin: int
    end: int
    sway: float

    @property
    def frames(self) -> int:
        return self.end - self.begin

    def sways(self, least: float) -> bool:
        return _RUN_FRAMES[0] <= self.frames <= _RUN_FRAMES[1] and least <= self.sway <= _MOST_GLIDE


def _is_speech(phrase: Sequence[_Run]) -> bool:
    seconds = sum(run.frames for run in phrase) / FRAMES_PER_SECOND
    steady = sum(run.frames for run in phrase if run.frames >= _RUN_FRAMES[0] and run.sway < _LEAST_SWAY)
    if steady > _MOST_STEADY_SHARE * seconds * FRAMES_PER_SECOND:
        return False
    if seconds > _SHORT_PHRASE_SECONDS:
        return _swaying_seconds(phrase, _LEAST_GLIDE) >= _LEAST_GLIDING_SHARE * seconds
    several = sum(run.sways(_LEAST_SWAY) for run in phrase) > 1
    return _swaying_seconds(phrase, _LEAST_SWAY) >= (_LEAST_VOICE_SECONDS if several else _LONE_RUN_SECONDS)


def _swaying_seconds(runs: Sequence[_Run], least: float) -> float:
    return sum(run.frames for run in runs if run.sways(least)) / FRAMES_PER_SECOND


def _grouped(runs: Sequence[_Run]) -> Iterator[list[_Run]]:
    group: list[_Run] = []
    for run in runs:
        if group and run.begin - group[-1].end > _PHRASE_PAUSE_FRAMES:
            yield group
            group = []
        group.append(run)
    if group:
        yield group


def _runs(samples: Pcm) -> list[_Run]:
    if len(samples) < 2 * _LENGTH:
        return []
    pitch = _pitch(samples)
    return [_Run(begin, end, _sway(pitch[begin:end])) for begin, end in stretches(pitch > 0).tolist()]


def _sway(run: Values) -> float:
    return float(np.median(np.abs(np.diff(run)) / run[:-1])) if len(run) > 1 else 0.0


def _pitch(samples: Pcm) -> Values:
    """Return the pitch of every frame in Hz; 0 where there is none or the frame is too quiet."""
    half = samples[: len(samples) // 2 * 2].reshape(-1, 2).mean(axis=1)
    frames = sliding_window_view(half, _LENGTH)[::_HOP]
    frames = frames - frames.mean(axis=1, keepdims=True)
    taper = np.hanning(_LENGTH)
    power = np.einsum("fs,fs->f", frames, frames) / _LENGTH + 1
    correlation = _autocorrelation(frames * taper) / _autocorrelation(taper[np.newaxis])
    lags = correlation[:, _LAGS] / np.maximum(correlation[:, :1], 1)
    best = lags.argmax(axis=1)
    voiced = lags[np.arange(len(lags)), best] > _VOICED
    loud = power > power.max() / 10 ** (_AUDIBLE_DECIBELS / 10)
    return np.where(voiced & loud, _RATE_HZ / (_LAGS.start + best + _vertex(lags, best)), 0.0)


def _autocorrelation(frames: Values) -> Values:
    return np.fft.irfft(np.abs(np.fft.rfft(frames, _FFT)) ** 2)[:, : _LENGTH // 2]


def _vertex(lags: Values, best: NDArray[np.intp]) -> Values:
    """Return the offset, in lags, of the vertex of the parabola through each peak and its two neighbours."""
    rows, inner = np.arange(len(lags)), np.clip(best, 1, lags.shape[1] - 2)
    left, top, right = lags[rows, inner - 1], lags[rows, inner], lags[rows, inner + 1]
    bend = left - 2 * top + right
    offset = np.where(bend < 0, (left - right) / np.where(bend < 0, 2 * bend, 1), 0.0)
    return np.clip(offset, -0.5, 0.5)
