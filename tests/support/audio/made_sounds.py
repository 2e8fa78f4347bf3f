"""Sounds without speech, made from seeds: music of several kinds, noise, hum, clicks, beeps."""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from worker.ports import SAMPLE_RATE_HZ, Pcm

Wave = NDArray[np.float64]

LOUDEST = 8000
_SCALE = (0, 2, 4, 5, 7, 9, 11, 12)


def _time(count: int) -> Wave:
    return np.arange(count) / SAMPLE_RATE_HZ


def _tone(count: int, hertz: float, *, vibrato: float = 0.0) -> Wave:
    time = _time(count)
    phase = 2 * np.pi * np.cumsum(hertz * (1 + vibrato * np.sin(2 * np.pi * 5.5 * time))) / SAMPLE_RATE_HZ
    overtones = range(1, 9)
    return np.sum([np.sin(number * phase) / number for number in overtones if number * hertz < 7500], axis=0)


def melody(
    seconds: float,
    seed: int,
    *,
    voices: int = 1,
    note_seconds: tuple[float, float] = (0.15, 0.6),
    plucked: bool = True,
    vibrato: float = 0.0,
    drums: bool = False,
) -> Pcm:
    """Return instruments that play notes of a scale, some of them rests."""
    rng = np.random.default_rng(seed)
    sound = np.zeros(int(seconds * SAMPLE_RATE_HZ))
    for _ in range(voices):
        base, place = rng.uniform(110, 440), 0
        while place < len(sound) - 200:
            count = min(int(rng.uniform(*note_seconds) * SAMPLE_RATE_HZ), len(sound) - place)
            time = _time(count)
            shape = np.minimum(time / 0.01, 1)
            shape *= np.exp(-time * rng.uniform(2, 6)) if plucked else np.minimum(time[::-1] / 0.03, 1)
            if rng.random() > 0.1:
                sound[place : place + count] += (
                    _tone(count, base * 2 ** (rng.choice(_SCALE) / 12), vibrato=vibrato) * shape
                )
            place += count
    if drums:
        for place in range(0, len(sound) - 4000, SAMPLE_RATE_HZ // 4):
            sound[place : place + 4000] += rng.standard_normal(4000) * np.exp(-np.arange(4000) / rng.uniform(300, 1500))
    return _at_level(sound)


def chords(seconds: float, seed: int) -> Pcm:
    """Return held triads of 0.5 to 1.5 s."""
    rng = np.random.default_rng(seed)
    sound, place = np.zeros(int(seconds * SAMPLE_RATE_HZ)), 0
    while place < len(sound):
        count = min(int(rng.uniform(0.5, 1.5) * SAMPLE_RATE_HZ), len(sound) - place)
        root, third = rng.uniform(110, 220), rng.choice((3, 4))
        sound[place : place + count] += np.sum(
            [_tone(count, root * 2 ** (step / 12)) for step in (0, third, 7)], axis=0
        )
        place += count
    return _at_level(sound)


def noise(seconds: float, seed: int, *, falling: bool = False) -> Pcm:
    """Return white noise, or with `falling` pink noise, as of wind and rooms."""
    sound = np.random.default_rng(seed).standard_normal(int(seconds * SAMPLE_RATE_HZ))
    if falling:
        spectrum = np.fft.rfft(sound)
        sound = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1)), len(sound))
    return _at_level(sound)


def hum(seconds: float, _seed: int) -> Pcm:
    """Return mains hum."""
    return _at_level(_tone(int(seconds * SAMPLE_RATE_HZ), 50))


def clicks(seconds: float, seed: int) -> Pcm:
    """Return keystrokes and knocks."""
    rng = np.random.default_rng(seed)
    sound, place = np.zeros(int(seconds * SAMPLE_RATE_HZ)), 0
    while place < len(sound) - 1600:
        sound[place : place + 1600] += rng.standard_normal(1600) * np.exp(-np.arange(1600) / rng.uniform(20, 300))
        place += int(rng.uniform(0.05, 0.6) * SAMPLE_RATE_HZ)
    return _at_level(sound)


def beeps(seconds: float, seed: int) -> Pcm:
    """Return the sounds of a game: beeps, some of which rise or fall."""
    rng = np.random.default_rng(seed)
    sound, place = np.zeros(int(seconds * SAMPLE_RATE_HZ)), 0
    while place < len(sound) - 8000:
        count = int(rng.uniform(0.05, 0.3) * SAMPLE_RATE_HZ)
        bend = rng.uniform(-1, 1) if rng.random() < 0.4 else 0.0
        hertz = rng.uniform(200, 1500) * 2 ** (bend * np.arange(count) / count)
        sound[place : place + count] = np.sign(np.sin(2 * np.pi * np.cumsum(hertz) / SAMPLE_RATE_HZ))
        place += count + int(rng.uniform(0.02, 0.8) * SAMPLE_RATE_HZ)
    return _at_level(sound)


MUSIC: Mapping[str, Callable[[float, int], Pcm]] = {
    "plucked": melody,
    "held": partial(melody, plucked=False),
    "fast": partial(melody, note_seconds=(0.08, 0.2)),
    "two voices": partial(melody, voices=2, plucked=False),
    "band": partial(melody, voices=3, drums=True),
    "vibrato": partial(melody, plucked=False, note_seconds=(0.3, 1.0), vibrato=0.01),
    "chords": chords,
}
NOISES: Mapping[str, Callable[[float, int], Pcm]] = {
    "white": noise,
    "pink": partial(noise, falling=True),
    "hum": hum,
    "clicks": clicks,
    "beeps": beeps,
}


def _at_level(sound: Wave) -> Pcm:
    return (sound / (np.abs(sound).max() or 1.0) * LOUDEST).astype(np.int16)
