"""The in-memory twin of the speech engine: words made of the samples, for tests and for benches without a model.

At a pace of its own it is the null engine, which load and chaos tests run in place of a model.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import zip_longest
from typing import TypeAlias
from zlib import crc32

import numpy as np

from schemas.speech import Word
from worker.ports import SAMPLE_RATE_HZ, EngineFacts, Pcm, Recognition

FRAME_SAMPLES = SAMPLE_RATE_HZ // 50
LOUD = 300
LONGEST_WORD_FRAMES = 20
SENTENCE_GAP_SAMPLES = 25 * FRAME_SAMPLES
LONGEST_WINDOW_SECONDS = 40

Script: TypeAlias = Callable[[Pcm, str], Awaitable[None]]
"""Hook awaited before each window, with its samples and job id: raises to fail the window, waits to delay it."""

MEMORY_FACTS = EngineFacts(
    model_name="memory",
    model_fingerprint="memory-1",
    device_name="cpu",
    uses_gpu=False,
    languages=frozenset({"en"}),
)


async def at_once(_samples: Pcm, _job_id: str) -> None:
    """No script: the other tasks get a turn, that is all."""
    await asyncio.sleep(0)


class MemoryRecogniser:
    """Recognises a word in every burst of sound, of at most 0.4 s, named after the burst's samples.

    The same sound is the same word in every window, and silence is no word. A pause of half a second ends a sentence.
    `engine_seconds` is the window's length divided by `speed`. Keyterms change nothing; those that are not ASCII count
    as unspeakable.
    """

    def __init__(self, *, script: Script = at_once, speed: float = 100.0, facts: EngineFacts = MEMORY_FACTS) -> None:
        self._script, self._speed, self._facts = script, speed, facts

    @property
    def facts(self) -> EngineFacts:
        """See the port."""
        return self._facts

    def unspeakable(self, keyterms: Sequence[str]) -> tuple[str, ...]:
        """See the port."""
        return tuple(term for term in keyterms if not term.isascii())

    async def recognise(
        self, samples: Pcm, job_id: str, *, keyterms: tuple[str, ...] = (), team_id: str = ""
    ) -> Recognition:
        """See the port."""
        del keyterms, team_id
        seconds = len(samples) / SAMPLE_RATE_HZ
        if seconds > LONGEST_WINDOW_SECONDS:
            raise ValueError(f"a window of {seconds:.1f} s is longer than {LONGEST_WINDOW_SECONDS} s")
        await self._script(samples, job_id)
        return Recognition(words=tuple(words_in(samples)), engine_seconds=seconds / self._speed)


def null_engine(speed: float) -> MemoryRecogniser:
    """Create the in-memory twin with a device's pace: one window at a time, each taking its length divided by `speed`.

    Words and facts do not depend on the speed, so checkpoints of one speed are valid for another.
    """
    device = asyncio.Lock()

    async def in_one_line(samples: Pcm, _job_id: str) -> None:
        async with device:
            await asyncio.sleep(len(samples) / SAMPLE_RATE_HZ / speed)

    return MemoryRecogniser(script=in_one_line, speed=speed)


def words_in(samples: Pcm) -> Iterator[Word]:
    """Return the twins' words of samples of any length; a function of the samples alone."""
    bursts = list(_bursts(samples))
    opens = True
    for (start, end), following in zip_longest(bursts, bursts[1:]):
        closes = following is None or following[0] - end >= SENTENCE_GAP_SAMPLES
        name = _name(samples[start:end])
        yield Word(
            text=(name.capitalize() if opens else name) + ("." if closes else ""),
            start_seconds=start / SAMPLE_RATE_HZ,
            end_seconds=end / SAMPLE_RATE_HZ,
            confidence=0.99,
        )
        opens = closes


def _bursts(samples: Pcm) -> Iterator[tuple[int, int]]:
    """Yield the bounds, in samples, of each stretch of sound."""
    frames = len(samples) // FRAME_SAMPLES
    peaks = np.abs(samples[: frames * FRAME_SAMPLES].astype(np.int32)).reshape(frames, FRAME_SAMPLES).max(axis=1)
    edges = np.flatnonzero(np.diff(np.concatenate(([False], peaks > LOUD, [False]))))
    for start, end in edges.reshape(-1, 2).tolist():
        for cut in range(start, end, LONGEST_WORD_FRAMES):
            yield cut * FRAME_SAMPLES, min(cut + LONGEST_WORD_FRAMES, end) * FRAME_SAMPLES


def _name(samples: Pcm) -> str:
    """Letters that sound like a word, from a checksum: two bursts alike are one word."""
    digits = crc32(samples.tobytes())
    return "".join(
        "bdfghklmnprstvwz"[digits >> shift & 15] + "aeiou"[(digits >> shift + 4) % 5] for shift in (0, 8, 16)
    )
