"""Speech detector that separates missed speech from music and noise.

Used only on stretches without words, where a positive answer costs a second decode and perhaps a Deepgram request.
Speech is voiced sound in short runs whose pitch glides: a held note does not glide, a hum does not stop, and noise has
no pitch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from worker.core.transcript.loudness import FRAME_SAMPLES, FRAMES_PER_SECOND, SAMPLE_RATE_HZ, Pcm

SampleTrack = NDArray[np.float64]
"""One value a frame of 20 ms."""

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


def talking_seconds(samples: Pcm) -> float:
    """Return the seconds of voiced sound in runs whose pitch glides; speech is voiced for about half of its time."""
    return sum(run.frames for run in _runs(samples) if run.sways(_LEAST_GLIDE)) / FRAMES_PER_SECOND


def phrases(samples: Pcm) -> tuple[tuple[float, float], ...]:
    """Return begin and end, in seconds, of each stretch of voiced sound that is speech and not music.

    More sensitive than `talking_seconds`: 0.4 s of voice are enough, in a flat voice too.
    """
    found = [_Phrase(tuple(runs)) for runs in _grouped(_runs(samples))]
    voiced = sum(phrase.seconds for phrase in found)
    if voiced > _SHORT_PHRASE_SECONDS and sum(phrase.gliding for phrase in found) < _LEAST_GLIDING_SHARE * voiced:
        return ()
    spoken = [phrase for phrase in found if phrase.is_speech]
    if not spoken and _Phrase(tuple(run for phrase in found for run in phrase.runs)).is_speech:
        spoken = found  # single words with long pauses between them
    return tuple(
        (phrase.runs[0].begin / FRAMES_PER_SECOND, phrase.runs[-1].end / FRAMES_PER_SECOND) for phrase in spoken
    )


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


@dataclass(frozen=True, slots=True)
class _Phrase:
    """Runs with short pauses between them."""

    runs: tuple[_Run, ...]

    @property
    def seconds(self) -> float:
        return (self.runs[-1].end - self.runs[0].begin) / FRAMES_PER_SECOND

    @property
    def gliding(self) -> float:
        return self._seconds(_LEAST_GLIDE)

    @property
    def is_speech(self) -> bool:
        swaying = self._seconds(_LEAST_SWAY)
        all_runs = sum(run.frames for run in self.runs) / FRAMES_PER_SECOND
        steady = sum(run.frames for run in self.runs if run.frames >= _RUN_FRAMES[0] and run.sway < _LEAST_SWAY)
        if steady > _MOST_STEADY_SHARE * all_runs * FRAMES_PER_SECOND:
            return False
        if all_runs > _SHORT_PHRASE_SECONDS:
            return self.gliding >= _LEAST_GLIDING_SHARE * all_runs
        several = sum(run.sways(_LEAST_SWAY) for run in self.runs) > 1
        return swaying >= (_LEAST_VOICE_SECONDS if several else _LONE_RUN_SECONDS)

    def _seconds(self, least: float) -> float:
        return sum(run.frames for run in self.runs if run.sways(least)) / FRAMES_PER_SECOND


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
    edges = np.flatnonzero(np.diff(np.concatenate(([False], pitch > 0, [False])).astype(np.int8))).reshape(-1, 2)
    return [_Run(begin, end, _sway(pitch[begin:end])) for begin, end in edges.tolist()]


def _sway(run: SampleTrack) -> float:
    return float(np.median(np.abs(np.diff(run)) / run[:-1])) if len(run) > 1 else 0.0


def _pitch(samples: Pcm) -> SampleTrack:
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


def _autocorrelation(frames: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.fft.irfft(np.abs(np.fft.rfft(frames, _FFT)) ** 2)[:, : _LENGTH // 2]


def _vertex(lags: NDArray[np.float64], best: NDArray[np.intp]) -> SampleTrack:
    """Return the offset, in lags, of the vertex of the parabola through each peak and its two neighbours."""
    rows, inner = np.arange(len(lags)), np.clip(best, 1, lags.shape[1] - 2)
    left, top, right = lags[rows, inner - 1], lags[rows, inner], lags[rows, inner + 1]
    bend = left - 2 * top + right
    offset = np.where(bend < 0, (left - right) / np.where(bend < 0, 2 * bend, 1), 0.0)
    return np.clip(offset, -0.5, 0.5)
