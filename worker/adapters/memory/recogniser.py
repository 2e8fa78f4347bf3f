"""The in-memory twin of the speech engine: words made of the samples, for tests and for benches without a model.

At a pace of its own it is the null engine, which load and chaos tests run in place of a model.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from math import inf
from typing import TypeAlias
from zlib import crc32

import numpy as np

from schemas.speech import Word
from worker.ports import SAMPLE_RATE_HZ, EngineFacts, Pcm, Recognition

FRAME_SAMPLES = SAMPLE_RATE_HZ // 50
LOUD = 300
LONGEST_WORD_FRAMES = 20
SENTENCE_GAP_FRAMES = 25
LONGEST_WINDOW_SECONDS = 40

_NULL_NAME = re.compile(r"null(?::(\d+(?:\.\d+)?)x)?")

Script: TypeAlias = Callable[[Pcm, str], Awaitable[None]]
"""Hook awaited before each window, with its samples and job id: raises to fail the window, waits to delay it."""

MEMORY_FACTS = EngineFacts(
    model_name="memory",
    model_fingerprint="memory-1",
    device_name="cpu",
    uses_gpu=False,
    languages=frozenset({"en"}),
)


@dataclass(frozen=True, slots=True)
class _Burst:
    """A stretch of sound, in frames of 20 ms."""

    start: int
    end: int


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


def null_speed(model_name: str) -> float | None:
    """Return the speed in times real time that `null:200x` names, infinity for `null`, None for a model."""
    if (asked := _NULL_NAME.fullmatch(model_name)) is None:
        return None
    return float(asked[1] or inf) or inf


def null_engine(speed: float) -> MemoryRecogniser:
    """Create the in-memory twin with a device's pace: one window at a time, each taking its length divided by `speed`.

    Words and facts do not depend on the speed, so checkpoints of one speed are valid for another.
    """
    return MemoryRecogniser(script=_Pace(speed), speed=speed)


class _Pace:
    """Keeps the windows of all jobs in one line."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._device = asyncio.Lock()

    async def __call__(self, samples: Pcm, job_id: str) -> None:
        del job_id
        async with self._device:
            await asyncio.sleep(len(samples) / SAMPLE_RATE_HZ / self._speed)


def words_in(samples: Pcm) -> Iterator[Word]:
    """Return the twins' words of samples of any length; a function of the samples alone."""
    bursts = list(_bursts(samples))
    opens = True
    for burst, following in zip_longest(bursts, bursts[1:]):
        closes = following is None or following.start - burst.end >= SENTENCE_GAP_FRAMES
        name = _name(samples[burst.start * FRAME_SAMPLES : burst.end * FRAME_SAMPLES])
        yield Word(
            text=(name.capitalize() if opens else name) + ("." if closes else ""),
            start_seconds=burst.start * FRAME_SAMPLES / SAMPLE_RATE_HZ,
            end_seconds=burst.end * FRAME_SAMPLES / SAMPLE_RATE_HZ,
            confidence=0.99,
        )
        opens = closes


def _bursts(samples: Pcm) -> Iterator[_Burst]:
    frames = len(samples) // FRAME_SAMPLES
    peaks = np.abs(samples[: frames * FRAME_SAMPLES].astype(np.int32)).reshape(frames, FRAME_SAMPLES).max(axis=1)
    edges = np.flatnonzero(np.diff(np.concatenate(([False], peaks > LOUD, [False]))))
    for start, end in edges.reshape(-1, 2).tolist():
        for cut in range(start, end, LONGEST_WORD_FRAMES):
            yield _Burst(cut, min(cut + LONGEST_WORD_FRAMES, end))


def _name(samples: Pcm) -> str:
    """Letters that sound like a word, from a checksum: two bursts alike are one word."""
    digits = crc32(samples.tobytes())
    return "".join(
        "bdfghklmnprstvwz"[digits >> shift & 15] + "aeiou"[(digits >> shift + 4) % 5] for shift in (0, 8, 16)
    )
