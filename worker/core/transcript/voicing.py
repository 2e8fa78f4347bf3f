"""Speech detector that separates missed speech from music and noise.

Used only on stretches without words, where a positive answer costs a second decode and perhaps a Deepgram request.
Speech is voiced sound in short runs whose pitch glides: a held note does not glide, a hum does not stop, and noise has
no pitch.
"""

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


def talking_seconds(samples: Pcm) -> float:
    """Return the seconds of voiced sound in runs whose pitch glides; speech is voiced for about half of its time."""
    if len(samples) < 2 * _LENGTH:
        return 0.0
    pitch = _pitch(samples)
    edges = np.flatnonzero(np.diff(np.concatenate(([False], pitch > 0, [False])).astype(np.int8)))
    runs = (pitch[begin:end] for begin, end in edges.reshape(-1, 2))
    return sum(len(run) for run in runs if _glides(run)) / FRAMES_PER_SECOND


def _glides(run: SampleTrack) -> bool:
    if not _RUN_FRAMES[0] <= len(run) <= _RUN_FRAMES[1]:
        return False
    step = np.median(np.abs(np.diff(run)) / run[:-1])
    return bool(_LEAST_GLIDE <= step <= _MOST_GLIDE)


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
