"""Deepgram's stand-in with our adapter in front of it, and sound for both."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from schemas.speech import Word
from worker.adapters.deepgram import CircuitBreaker, DeepgramRecogniser
from worker.adapters.memory.cloud_recogniser import MemoryCloudRecogniser
from worker.adapters.memory.recogniser import Script, at_once, words_in
from worker.embedded.deepgram import EmbeddedDeepgram
from worker.embedded.deepgram.misbehaviour import Misbehave, well_behaved
from worker.ports import SAMPLE_RATE_HZ, Clock, CloudRecognition, Pcm

KEY = "dg-0123456789abcdef-secret"


def chatter(seconds: float, seed: int = 0) -> Pcm:
    """Bursts of noise between pauses: words for the twins."""
    rng = np.random.default_rng(seed)
    samples = np.zeros(int(seconds * SAMPLE_RATE_HZ), dtype=np.int16)
    at = SAMPLE_RATE_HZ // 5
    while at < len(samples):
        length = int(rng.integers(SAMPLE_RATE_HZ // 10, SAMPLE_RATE_HZ // 3))
        samples[at : at + length] = rng.integers(-9_000, 9_000, len(samples[at : at + length]))
        at += length + int(rng.integers(SAMPLE_RATE_HZ // 10, SAMPLE_RATE_HZ))
    return samples


async def hear(samples: Pcm) -> Sequence[Word]:
    return tuple(words_in(samples))


class SkippingClock:
    """A clock whose sleepers wake at once, the time having passed; `slept` has what each asked for."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def now(self) -> datetime:
        return datetime(2026, 11, 22, 10, tzinfo=UTC) + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        return sum(self.slept)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


class GuardedCloud(MemoryCloudRecogniser):
    """The paid twin behind the real circuit breaker: what its `script` raises is judged as Deepgram's failures are."""

    def __init__(self, clock: Clock, script: Script = at_once) -> None:
        super().__init__(script=script)
        self.breaker = CircuitBreaker(clock)

    async def turn(self) -> None:
        await self.breaker.turn()

    async def recognise(
        self, samples: Pcm, *, language: str, job_id: str, keyterms: tuple[str, ...] = ()
    ) -> CloudRecognition:
        await self.breaker.own_probe_ended(job_id)
        with self.breaker.guard(job_id):
            return await super().recognise(samples, language=language, job_id=job_id, keyterms=keyterms)

    @property
    def down_because(self) -> str:
        return self.breaker.down_because


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The stand-in, and the adapter that takes it for Deepgram."""

    server: EmbeddedDeepgram
    recogniser: DeepgramRecogniser
    clock: SkippingClock

    @property
    def statuses(self) -> list[int | None]:
        return [receipt.status for receipt in self.server.receipts]


@asynccontextmanager
async def deepgram(misbehave: Misbehave = well_behaved, **options: Any) -> AsyncIterator[Pair]:
    clock = SkippingClock()
    async with EmbeddedDeepgram(hear, api_key=KEY, misbehave=misbehave) as server:
        plainly = {"api_key": KEY, "model": "nova-3", "max_concurrent": 8, "base_url": server.url}
        async with DeepgramRecogniser(clock=clock, rng=random.Random(7), **(plainly | options)) as recogniser:
            yield Pair(server=server, recogniser=recogniser, clock=clock)
