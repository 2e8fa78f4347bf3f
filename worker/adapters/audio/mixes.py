"""Choice of the mix of channels that is transcribed.

The mix is the mean of all channels, unless they cancel each other: with one wire swapped, or in a track whose voices
were removed, the mean is almost silent although each channel has speech. ffmpeg therefore computes a second mix with
other weights, and each quarter of a second in which the mean is more than 20 dB quieter is taken from the second mix.
Quarters are counted from the file's first sample, so that parts of a file decide like its serial decode.
"""

from collections.abc import Iterator

import numpy as np

from worker.ports import SAMPLE_RATE_HZ, Pcm

CELL_SAMPLES = SAMPLE_RATE_HZ // 4
_BEYOND_DOUBT_PEAK = 3_277
"""-20 dB: no channel can be 20 dB above a mean that reaches this."""
_CANCELLED = 100.0
"""A ratio of two energies: 20 dB."""
_AUDIBLE = 10.0**2
"""Mean square, -70 dB: below it is noise, whatever its channels do."""


class Chooser:
    """Takes both mixes and gives one; holds back less than a second."""

    def __init__(self) -> None:
        self._rest: Pcm = np.empty((0, 2), np.int16)

    def push(self, samples: Pcm) -> Iterator[Pcm]:
        """Yield whole seconds of the mix chosen; `samples` has shape (samples, mixes)."""
        if samples.shape[1] == 1:
            yield samples[:, 0]
            return
        self._rest = np.concatenate([self._rest, samples]) if len(self._rest) else samples
        whole = len(self._rest) - len(self._rest) % SAMPLE_RATE_HZ
        if whole:
            yield _chosen(self._rest[:whole])
            self._rest = self._rest[whole:]

    def finish(self) -> Iterator[Pcm]:
        """Yield what is left."""
        if len(self._rest):
            yield _chosen(self._rest)
            self._rest = self._rest[:0]


def _chosen(samples: Pcm) -> Pcm:
    chosen = samples[:, 0].copy()
    whole = len(samples) - len(samples) % CELL_SAMPLES
    peaks = chosen[:whole].reshape(-1, CELL_SAMPLES).max(axis=1)
    suspects = [int(cell) * CELL_SAMPLES for cell in np.flatnonzero(peaks < _BEYOND_DOUBT_PEAK)]
    for start in (*suspects, whole):
        cell = slice(start, start + CELL_SAMPLES)
        if _cancels(samples[cell]):
            chosen[cell] = samples[cell, 1]
    return chosen


def _cancels(cell: Pcm) -> bool:
    mean, other = _energy(cell[:, 0]), _energy(cell[:, 1])
    return other > _AUDIBLE * len(cell) and other > _CANCELLED * mean


def _energy(samples: Pcm) -> float:
    floats = samples.astype(np.float32)
    return float(np.dot(floats, floats))
