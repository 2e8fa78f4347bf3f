import asyncio
from math import inf

import numpy as np
import pytest

from tests.support.jobs.harness import speech
from worker.adapters.memory.recogniser import MemoryRecogniser, null_engine
from worker.app import recogniser
from worker.app.recogniser import make_engine, null_speed
from worker.errors import ModelLoadingError
from worker.settings import CloudSettings, EngineSettings

ON_EMULATORS = {"pubsub_emulator_host": "127.0.0.1:1", "storage_emulator_host": "http://127.0.0.1:2"}


@pytest.mark.parametrize(
    ("name", "speed"),
    [("null", inf), ("null:200x", 200), ("null:0.5x", 0.5), ("null:0x", inf), ("null:x", None), ("nvidia/null", None)],
)
def test_the_null_engines_name_sets_its_speed(name: str, speed: float | None) -> None:
    assert null_speed(name) == speed


async def test_the_null_engine_returns_the_twins_words_at_any_speed() -> None:
    samples = speech(5)

    heard = [(await null_engine(speed).recognise(samples, "job")).words for speed in (inf, 1000)]

    assert heard == [(await MemoryRecogniser().recognise(samples, "job")).words] * 2


async def test_windows_of_several_jobs_wait_for_one_another() -> None:
    engine, second = null_engine(speed=20), np.zeros(16_000, np.int16)
    loop = asyncio.get_running_loop()
    began = loop.time()

    heard = await asyncio.gather(*(engine.recognise(second, f"job-{number}") for number in range(3)))

    assert loop.time() - began >= 3 / 20
    assert [one.engine_seconds for one in heard] == [1 / 20] * 3


@pytest.mark.parametrize("missing", ON_EMULATORS)
def test_it_is_refused_where_any_server_may_be_the_real_one(missing: str) -> None:
    cloud = CloudSettings(**{**ON_EMULATORS, missing: None})

    with pytest.raises(ModelLoadingError, match="load tests"):
        make_engine(EngineSettings(parakeet_model_name="null:10x"), cloud)


def test_an_install_without_it_says_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recogniser, "find_spec", lambda _: None)

    with pytest.raises(ModelLoadingError, match="from the checkout"):
        make_engine(EngineSettings(parakeet_model_name="null"), CloudSettings(**ON_EMULATORS))


async def test_it_serves_on_emulators() -> None:
    async with make_engine(EngineSettings(parakeet_model_name="null"), CloudSettings(**ON_EMULATORS)) as engine:
        assert engine.facts.model_name == "memory"
