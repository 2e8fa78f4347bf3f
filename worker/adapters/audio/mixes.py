"""Choice of the mix of channels that is transcribed.

The mix is the mean of all channels, unless they cancel each other: with one wire swapped, or in a track whose voices
were removed, the mean is almost silent although each channel has speech. ffmpeg therefore computes a second mix with
other weights, and each quarter of a second in which the mean is more than 20 dB quieter is taken from the second mix.
Quarters are counted from the file's first sample, so that parts of a file decide like its serial decode.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worker.adapters.audio.command import Way
from worker.adapters.audio.headers import SamplesSize
from worker.adapters.audio.timeline import Doubt
from worker.ports import SAMPLE_RATE_HZ, Pcm

CELL_SAMPLES = SAMPLE_RATE_HZ // 4
_AT_ONCE_SAMPLES = 4 * SAMPLE_RATE_HZ
_BEYOND_DOUBT_PEAK = 3_277
"""-20 dB: no channel can be 20 dB above a mean that reaches this."""
_CANCELLED = 100.0
"""A ratio of two energies: 20 dB."""
_AUDIBLE = 10.0**2
"""Mean square, -70 dB: below it is noise, whatever its channels do."""
_BITS = 16
_Pairs = NDArray[np.int32]
"""A sample of the mean, in the lower half, and one of the other mix."""


class Chooser:
    """Takes both mixes and gives one; holds back less than `_AT_ONCE_SAMPLES`.

    With `wav` it takes the mean alone, and raises `Doubt` where the file's channels cancel each other.
    """

    def __init__(self, wav: "WavChannels | None" = None) -> None:
        self._wav = wav
        self._held: list[Pcm] = []
        self._count = 0

    def push(self, samples: Pcm) -> Iterator[Pcm]:
        """Yield whole quarters of a second of the mix chosen; `samples` has shape (samples, mixes)."""
        if samples.shape[1] == 1 and self._wav is None:
            yield samples[:, 0]
            return
        self._held.append(samples)
        self._count += len(samples)
        if self._count >= _AT_ONCE_SAMPLES:
            together = np.concatenate(self._held)
            whole = len(together) - len(together) % CELL_SAMPLES
            yield self._chosen(together[:whole])
            self._held, self._count = [together[whole:]], len(together) - whole

    def finish(self) -> Iterator[Pcm]:
        """Yield what is left."""
        if self._count:
            yield self._chosen(np.concatenate(self._held))
            self._held, self._count = [], 0

    def _chosen(self, samples: Pcm) -> Pcm:
        return self._wav.mean(samples[:, 0]) if self._wav else _chosen(samples)


class WavChannels:
    """A plain WAV's two channels of 16 bits, beside their mean from `begin_second` on."""

    def __init__(self, path: Path, samples: SamplesSize, begin_second: int = 0) -> None:
        assert samples.wav  # noqa: S101  # a caller's bug
        self._path, self._first_byte, self._rate_hz = path, samples.first_byte, samples.wav.rate_hz
        self._quarters = begin_second * 4

    def mean(self, mean: Pcm) -> Pcm:
        """Return the mean, which begins with a quarter. Raises `Doubt` where the channels may cancel each other.

        The part of the first channel below 8 kHz counts, as in the other mix that would be chosen.
        """
        rate_hz, first = self._rate_hz, self._quarters
        means = np.pad(mean, (0, -len(mean) % CELL_SAMPLES)).reshape(-1, CELL_SAMPLES)
        self._quarters += len(means)
        quiet = np.flatnonzero(means.max(axis=1) < _BEYOND_DOUBT_PEAK)
        frames = np.zeros((len(quiet), rate_hz // 4, 2), "<i2")
        with self._path.open("rb", buffering=0) as file:
            for number, quarter in enumerate(quiet):
                file.seek(self._first_byte + (first + int(quarter)) * rate_hz)
                file.readinto(frames[number].data)
        channel = frames[:, :, 0]
        most = np.maximum(_AUDIBLE, _CANCELLED * _energy(means[quiet]) / CELL_SAMPLES) / 2
        louder = _energy(channel) > most * channel.shape[1]
        heard = np.abs(np.fft.rfft(channel[louder])[:, : SAMPLE_RATE_HZ // 8])
        if np.any(2 * _energy(heard) > most[louder] * channel.shape[1] ** 2):
            raise Doubt
        return mean


def chooser_of(path: Path, way: Way, begin_second: int = 0) -> Chooser:
    """Return the chooser for the samples that come from that second on."""
    return Chooser(WavChannels(path, way.samples, begin_second) if way.samples and way.mean_alone else None)


def _chosen(samples: Pcm) -> Pcm:
    """Return one mix of both, in shape (samples,). They begin with a quarter; the last one may be shorter."""
    pairs: _Pairs = np.ascontiguousarray(samples).view("<i4")[:, 0]
    mean: Pcm = pairs.astype(np.int16)  # keeps the lower half
    whole = len(mean) - len(mean) % CELL_SAMPLES
    _choose(mean[:whole].reshape(-1, CELL_SAMPLES), pairs[:whole].reshape(-1, CELL_SAMPLES))
    _choose(mean[np.newaxis, whole:], pairs[np.newaxis, whole:])
    return mean


def _choose(mean: Pcm, pairs: _Pairs) -> None:
    """Replace the rows of `mean` where the channels cancel each other, in place; shape (quarters, samples)."""
    if not mean.size:
        return
    suspects = np.flatnonzero(mean.max(axis=1) < _BEYOND_DOUBT_PEAK)
    other: Pcm = (pairs[suspects] >> _BITS).astype(np.int16)
    mean_energy, other_energy = _energy(mean[suspects]), _energy(other)
    cancelled = (other_energy > _AUDIBLE * mean.shape[1]) & (other_energy > _CANCELLED * mean_energy)
    mean[suspects[cancelled]] = other[cancelled]


def _energy(samples: Pcm) -> NDArray[np.float32]:
    floats = samples.astype(np.float32)
    energies: NDArray[np.float32] = np.einsum("ij,ij->i", floats, floats)
    return energies
