"""Parakeet on a real GPU: exact repetition, and the memory cap. Run with `pytest -m gpu` where there is one."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.engines.parakeet import in_noise
from worker.adapters.parakeet.engine import ParakeetEngine
from worker.adapters.parakeet.protocol import EngineOptions
from worker.embedded.samples import tiny_model as tiny_model_file
from worker.ports import Pcm

MEMORY_LIMIT_GIB = 4

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(300),
    pytest.mark.skipif(not Path("/dev/nvidiactl").exists(), reason="no NVIDIA GPU on this machine"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[ParakeetEngine]:
    async with ParakeetEngine(
        EngineOptions(model_name=str(tiny_model_file()), device="cuda", batch_size=8, memory_limit_gib=MEMORY_LIMIT_GIB)
    ) as started:
        yield started


async def test_a_gpu_is_used_and_named(engine: ParakeetEngine) -> None:
    assert engine.facts.uses_gpu
    assert "NVIDIA" in engine.facts.device_name


async def test_words_and_confidences_are_exactly_the_same_in_any_company(
    engine: ParakeetEngine, speech_windows: tuple[Pcm, ...]
) -> None:
    alone = [(await engine.recognise(window, "alone")).words for window in speech_windows]

    for order in (speech_windows, speech_windows[::-1], speech_windows[3:], speech_windows[:5]):
        together = await asyncio.gather(*(engine.recognise(window, "job") for window in order))

        expected = [alone[next(i for i, one in enumerate(speech_windows) if one is window)] for window in order]
        assert [recognition.words for recognition in together] == expected


async def test_memory_stays_below_its_limit(engine: ParakeetEngine, speech_windows: tuple[Pcm, ...]) -> None:
    await asyncio.gather(*(engine.recognise(window, "job") for window in speech_windows))

    assert 0 < engine.health.device_memory_bytes <= MEMORY_LIMIT_GIB * 2**30


async def test_batches_much_too_large_for_the_cap_cost_no_window(speech_windows: tuple[Pcm, ...]) -> None:
    async with ParakeetEngine(
        EngineOptions(model_name=str(tiny_model_file()), device="cuda", batch_size=256, memory_limit_gib=2)
    ) as tight:
        heard = await asyncio.gather(*(tight.recognise(window, "job") for window in speech_windows * 64))
        health = tight.health

    assert all(recognition.words for recognition in heard)
    assert 0 < health.device_memory_bytes <= 2 * 2**30
    assert health.restarts == 0


KEYTERMS: tuple[tuple[str, ...], ...] = ((), ("Helen", "Peter"), ("Maria", "Oscar Winter"), ("David",)) * 2


async def test_words_are_the_same_with_graphs_and_without(
    engine: ParakeetEngine, speech_windows: tuple[Pcm, ...]
) -> None:
    windows = in_noise(speech_windows)
    heard = [(await engine.recognise(window, "job")).words for window in speech_windows]
    asked = zip(windows, KEYTERMS, strict=True)
    boosted = [(await engine.recognise(window, "job", keyterms=terms)).words for window, terms in asked]

    async with ParakeetEngine(
        EngineOptions(
            model_name=str(tiny_model_file()),
            device="cuda",
            batch_size=8,
            memory_limit_gib=MEMORY_LIMIT_GIB,
            gpu_graphs=False,
        )
    ) as plain:
        assert [(await plain.recognise(window, "job")).words for window in speech_windows] == heard
        together = await asyncio.gather(
            *(plain.recognise(window, "job", keyterms=terms) for window, terms in zip(windows, KEYTERMS, strict=True))
        )
    assert [recognition.words for recognition in together] == boosted


@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")  # NeMo's, while it makes the weights
async def test_batches_of_a_real_size_much_too_large_for_the_cap_cost_no_window(
    random_weights: Path, speech_windows: tuple[Pcm, ...]
) -> None:
    async with ParakeetEngine(
        EngineOptions(model_name=str(random_weights), device="cuda", batch_size=128, memory_limit_gib=8)
    ) as tight:
        heard = await asyncio.gather(*(tight.recognise(window, "job") for window in speech_windows * 32))
        health = tight.health

    assert len(heard) == 32 * len(speech_windows)
    assert 0 < health.device_memory_bytes <= 8 * 2**30
    assert health.restarts == 0
