"""The tiny Parakeet model: as an engine in a process of its own, and loaded into the test's own process."""

import warnings
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

import numpy as np
import pytest
import pytest_asyncio

from tests.support.audio.speech_bank import bank
from worker.adapters.parakeet.engine import ParakeetEngine, Patience
from worker.adapters.parakeet.protocol import EngineOptions
from worker.embedded.samples import tiny_model as tiny_model_file
from worker.ports import SAMPLE_RATE_HZ, Pcm

BATCH_SIZE = 4
PAUSE = np.zeros(SAMPLE_RATE_HZ // 3, dtype=np.int16)

TINY_OPTIONS = EngineOptions(
    model_name=str(tiny_model_file()), device="cpu", batch_size=BATCH_SIZE, memory_limit_gib=4, log_format="json"
)


@contextmanager
def quiet() -> Iterator[None]:
    """NeMo's warnings are not ours to mend."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def parakeet() -> AsyncIterator[ParakeetEngine]:
    """The engine, shared by the whole session: it loads for 10 s. Tests of it run on the session's loop."""
    async with ParakeetEngine(
        EngineOptions(model_name=str(tiny_model_file()), device="cpu", batch_size=BATCH_SIZE, memory_limit_gib=4),
        patience=Patience(silence_seconds=60),  # of a busy machine
    ) as engine:
        yield engine


@pytest.fixture(scope="session")
def speech_windows() -> tuple[Pcm, ...]:
    """Eight windows of 21 to 25 s, one a speaker, none of whom the model has met."""
    speakers: dict[str, list[Pcm]] = {}
    for clip in bank():
        speakers.setdefault(clip.utterance.speaker, []).append(clip.samples)
    return tuple(
        np.concatenate(list(chain.from_iterable((samples, PAUSE) for samples in clips)))[: (42 + number) * 8_000]
        for number, clips in enumerate(speakers.values())
    )


def in_noise(windows: Sequence[Pcm]) -> tuple[Pcm, ...]:
    """Return the speech in so much noise that keyterms change what is recognised."""
    noise = np.random.default_rng(7)
    return tuple(
        np.clip(one + noise.standard_normal(len(one)) * one.std() * 0.6, -32_768, 32_767).astype(np.int16)
        for one in windows
    )
