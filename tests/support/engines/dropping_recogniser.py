"""Speech of the twin's words, and an engine that drops some of them from the first pass over each window."""

import math
import random
from collections.abc import Iterable
from dataclasses import replace
from zlib import crc32

import numpy as np

from schemas.speech import Word
from worker.adapters.memory.recogniser import MemoryRecogniser
from worker.errors import EngineFailure
from worker.ports import SAMPLE_RATE_HZ, Pcm, Recognition

FRAME = SAMPLE_RATE_HZ // 50


def voices(seconds: float, seed: int) -> Pcm:
    """Return voiced words of 0.2 to 0.36 s whose pitch glides, each a word to the twin, with pauses of all lengths."""
    rng = np.random.default_rng(seed)
    sound = np.zeros(int(seconds * SAMPLE_RATE_HZ), np.int16)
    place = FRAME * int(rng.integers(0, 40))
    while True:
        count = FRAME * int(rng.integers(10, 19))
        if place + count > len(sound):
            return sound
        hertz = rng.uniform(110, 200) * np.geomspace(1, rng.uniform(1.15, 1.5) ** rng.choice((-1, 1)), count)
        phase = np.cumsum(2 * np.pi * hertz / SAMPLE_RATE_HZ)
        word = np.sum([np.sin(k * phase) / k for k in range(1, 12)], axis=0) * np.hanning(count) * 4000
        sound[place : place + count] = word
        pause = rng.choice((4, 6, 8, 30, 100), p=(0.3, 0.3, 0.3, 0.08, 0.02))
        place += count + FRAME * int(pause)


class DroppingRecogniser(MemoryRecogniser):
    """The twin, which loses 2.5 to 6 s of words at the start, in the middle or at the end of two windows in three.

    What a window loses depends on the seed and its samples. `chunk_windows` are those that lose words; a second pass
    over a hole has them. Every window after `breaks_after` fails.
    """

    def __init__(self, seed: int, chunk_windows: Iterable[Pcm]) -> None:
        super().__init__()
        self._seed, self._first = seed, {crc32(samples.tobytes()) for samples in chunk_windows}
        self.breaks_after = math.inf
        self._windows = 0

    async def recognise(
        self, samples: Pcm, job_id: str, *, keyterms: tuple[str, ...] = (), team_id: str = ""
    ) -> Recognition:
        """Recognise, and drop words."""
        self._windows += 1
        if self._windows > self.breaks_after:
            raise EngineFailure("parakeet", "it broke")
        heard = await super().recognise(samples, job_id, keyterms=keyterms, team_id=team_id)
        if (checksum := crc32(samples.tobytes())) in self._first:
            return replace(heard, words=self._kept(heard.words, checksum, len(samples) / SAMPLE_RATE_HZ))
        return heard

    def _kept(self, words: tuple[Word, ...], checksum: int, seconds: float) -> tuple[Word, ...]:
        rng = random.Random(f"{self._seed} {checksum}")
        lost = rng.uniform(2.5, 6.0)
        starts = (0.0, rng.uniform(0, max(0.0, seconds - lost)), max(0.0, seconds - lost), math.inf)
        start = rng.choices(starts, (2, 2, 2, 3))[0]
        return tuple(word for word in words if not start <= word.start_seconds < start + lost)
