import asyncio

import numpy as np
import pytest

from worker.adapters.memory.recogniser import MemoryRecogniser
from worker.errors import EngineFailure
from worker.ports import SAMPLE_RATE_HZ, Pcm


def bursts(*starts_seconds: float, seconds: float = 10.0) -> Pcm:
    """Noise of 0.3 s at each of these times, each unlike the others."""
    samples = np.zeros(round(seconds * SAMPLE_RATE_HZ), dtype=np.int16)
    for seed, start in enumerate(starts_seconds):
        at = round(start * SAMPLE_RATE_HZ)
        samples[at : at + 4_800] = np.random.default_rng(seed).integers(1_000, 9_000, 4_800)
    return samples


async def test_every_burst_is_a_word_in_its_place() -> None:
    words = (await MemoryRecogniser().recognise(bursts(1.0, 2.0, 7.5), "job")).words

    assert [(word.start_seconds, word.end_seconds) for word in words] == [(1.0, 1.3), (2.0, 2.3), (7.5, 7.8)]


async def test_the_same_sound_is_the_same_word_wherever_the_window_starts() -> None:
    samples = bursts(1.0, 1.4, 1.8, 4.0)

    early = (await MemoryRecogniser().recognise(samples, "job")).words
    late = (await MemoryRecogniser().recognise(samples[8_000:], "job")).words

    assert [word.text for word in early] == [word.text for word in late]
    assert len({word.text for word in early}) == 4


async def test_a_pause_ends_a_sentence() -> None:
    words = (await MemoryRecogniser().recognise(bursts(1.0, 1.4, 4.0), "job")).words

    assert [(word.text.endswith("."), word.text.istitle()) for word in words] == [
        (False, True),
        (True, False),
        (True, True),
    ]


async def test_a_long_sound_is_many_words() -> None:
    samples = np.full(2 * SAMPLE_RATE_HZ, 5_000, dtype=np.int16)

    assert len((await MemoryRecogniser().recognise(samples, "job")).words) == 5


async def test_a_script_can_fail_a_window() -> None:
    async def fail(_samples: Pcm, job_id: str) -> None:
        raise EngineFailure("memory", job_id)

    with pytest.raises(EngineFailure, match="this one"):
        await MemoryRecogniser(script=fail).recognise(bursts(1.0), "this one")


async def test_a_script_can_hold_a_window_up() -> None:
    gate = asyncio.Event()

    async def hold(_samples: Pcm, _job_id: str) -> None:
        await gate.wait()

    call = asyncio.create_task(MemoryRecogniser(script=hold).recognise(bursts(1.0), "job"))
    await asyncio.sleep(0)
    assert not call.done()
    gate.set()

    assert len((await call).words) == 1


async def test_engine_time_follows_from_the_speed() -> None:
    recognition = await MemoryRecogniser(speed=50.0).recognise(bursts(1.0, seconds=10.0), "job")

    assert recognition.engine_seconds == pytest.approx(0.2)
