from typing import Any

import pytest
from pydantic import SecretStr

from worker.adapters.machine.clock import SystemClock
from worker.adapters.memory.recogniser import MemoryRecogniser
from worker.adapters.memory.store import MemoryObjectStore
from worker.app.engines import engines_of, open_deepgram, prices
from worker.app.machine_checks import deepgram_findings
from worker.app.recogniser import NoEngine, make_engine
from worker.core.costs.budget import FallbackBudget, NoLimit
from worker.errors import DeepgramPriceUnknown, GpuNotAvailable
from worker.settings import CloudSettings, EngineSettings, MoneySettings, RoutingSettings, Settings, read_settings

STORE = MemoryObjectStore(SystemClock().now)


CLOUD, MONEY = CloudSettings(), MoneySettings()


KEY = {"deepgram_api_key": "a-key"}


def settings_with(**changes: Any) -> Settings:
    return read_settings(changes)


def with_key(**changes: Any) -> EngineSettings:
    return EngineSettings(deepgram_api_key=SecretStr("a-key"), **changes)


async def test_without_parakeet_no_process_is_started_and_its_facts_claim_nothing() -> None:
    async with make_engine(EngineSettings(enable_gpu_transcription=False), CLOUD) as engine:
        facts = engine.facts

        with pytest.raises(GpuNotAvailable, match="ENABLE_GPU_TRANSCRIPTION is false"):
            await engine.recognise(None, "job-1")

    assert (facts.model_name, facts.uses_gpu, facts.languages) == ("none", False, frozenset())


async def test_without_a_key_there_is_no_fallback() -> None:
    async with open_deepgram(EngineSettings(), MONEY, STORE, "state") as deepgram:
        assert deepgram is None


@pytest.mark.parametrize(("budget", "kind"), [(None, NoLimit), (0.0, FallbackBudget), (5.0, FallbackBudget)])
async def test_with_a_key_deepgram_has_its_price_and_its_budget(budget: float | None, kind: type) -> None:
    money = MoneySettings(fallback_budget_usd_per_day=budget)

    async with open_deepgram(with_key(deepgram_model="nova-2"), money, STORE, "state") as deepgram:
        assert deepgram is not None
        assert deepgram.recogniser.model_name == "nova-2"
        assert deepgram.usd_per_minute == 0.0043
        assert deepgram.most_requests == 2
        assert type(deepgram.budget) is kind


async def test_jobs_are_taken_in_while_parakeet_is_in_doubt_and_deepgram_may_do_them() -> None:
    async with open_deepgram(with_key(), MONEY, STORE, "state") as deepgram:
        engines = engines_of(with_key(), MONEY, MemoryRecogniser(), deepgram)

        engines.health.doubt("no words")

        assert engines.readiness.why_not() == ""


def test_an_engine_that_is_not_there_is_never_healthy() -> None:
    engines = engines_of(EngineSettings(), MONEY, NoEngine("no CUDA"), None)

    assert not engines.health.is_healthy()
    assert "DEEPGRAM_API_KEY" in engines.readiness.why_not()


@pytest.mark.parametrize(
    ("settings", "usd"),
    [
        (read_settings({}), (0.0001867, 0.000011244, 0.000001235, 0.0045, 0.0013)),
        (
            settings_with(
                gpu_usd_per_second=0.0, vcpu_usd_per_second=2.0, gib_usd_per_second=3.0, deepgram_usd_per_minute=4.0
            ),
            (0.0, 2.0, 3.0, 4.0, 0.0013),
        ),
        (
            settings_with(deepgram_model="nova-9", deepgram_usd_per_minute=0.1),
            (0.0001867, 0.000011244, 0.000001235, 0.1, 0.0),
        ),
        (
            settings_with(deepgram_keyterm_usd_per_minute=0.001),
            (0.0001867, 0.000011244, 0.000001235, 0.0045, 0.001),
        ),
    ],
)
def test_every_price_is_the_books_or_the_settings(settings: Settings, usd: tuple[float, ...]) -> None:
    found = prices(settings.engine, settings.money, uses_gpu=True)

    rates = found.rates
    assert usd == (
        rates.gpu_usd_per_second,
        rates.vcpu_usd_per_second,
        rates.gib_usd_per_second,
        found.deepgram_usd_per_minute,
        found.deepgram_keyterm_usd_per_minute,
    )


def test_a_worker_without_a_gpu_pays_for_none() -> None:
    assert prices(EngineSettings(), MONEY, uses_gpu=False).rates.gpu_usd_per_second == 0.0


def test_a_model_of_unknown_price_needs_one_in_the_settings() -> None:
    with pytest.raises(DeepgramPriceUnknown):
        prices(EngineSettings(deepgram_model="nova-9"), MONEY, uses_gpu=True)


@pytest.mark.parametrize(
    ("settings", "ok", "advice", "says"),
    [
        ({}, True, True, "the fallback is off"),
        ({"enable_gpu_transcription": False}, False, False, "ENABLE_GPU_TRANSCRIPTION=false leaves nothing else"),
        ({"transcription_method": "deepgram"}, False, False, "TRANSCRIPTION_METHOD=deepgram leaves nothing else"),
        ({"deepgram_model": "nova-9"}, False, False, "set DEEPGRAM_USD_PER_MINUTE"),
        ({"deepgram_api_key": "a key"}, False, False, "one word of printable ASCII"),
        ({**KEY, "fallback_budget_usd_per_day": 5}, True, False, "$0.0045 a minute, at most $5 a day"),
        ({**KEY, "enable_gpu_transcription": False}, True, False, "$0.0045 a minute, no limit a day"),
    ],
)
def test_the_check_says_whether_deepgram_can_be_used_and_must_be(
    settings: dict[str, Any], ok: bool, advice: bool, says: str
) -> None:
    effective = read_settings(settings)

    found = next(iter(deepgram_findings(effective.engine, effective.routing, effective.money)))

    assert (found.ok, found.advice) == (ok, advice)
    assert says in found.detail
    assert "a key" not in found.detail


def test_a_key_without_a_budget_is_worth_a_word() -> None:
    last = list(deepgram_findings(with_key(), RoutingSettings(), MONEY))[-1]

    assert last.advice
    assert "FALLBACK_BUDGET_USD_PER_DAY" in last.detail
