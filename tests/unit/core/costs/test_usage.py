import asyncio

import numpy as np
import pytest
from structlog.testing import capture_logs

from tests.support.clock import FakeClock
from tests.support.jobs.harness import PRICES
from worker.adapters.memory.recogniser import MemoryRecogniser
from worker.core.costs.bill import REPORT_SECONDS, MeteredRecogniser, report_usage, usage

USD_A_SECOND = PRICES.instance_usd_per_second
TEN_SECONDS = np.zeros(160_000, np.int16)


def test_charged_and_idle_time_add_up_to_the_instances_time() -> None:
    found = usage(3600.0, 900.0, PRICES)

    assert (found.idle_seconds, found.idle_percent) == (2700.0, 75.0)
    assert found.instance_usd == pytest.approx(3600 * USD_A_SECOND)
    assert found.jobs_usd + found.idle_usd == pytest.approx(found.instance_usd)


@pytest.mark.parametrize(("up", "engine", "percent"), [(0.0, 0.0, 0.0), (10.0, 10.0, 0.0), (10.0, 99.0, 0.0)])
def test_there_is_no_idle_time_below_zero(up: float, engine: float, percent: float) -> None:
    found = usage(up, engine, PRICES)

    assert (found.idle_seconds, found.idle_percent) == (0.0, percent)


async def test_a_metered_engine_returns_the_same_words_and_adds_up_its_time() -> None:
    engine = MeteredRecogniser(MemoryRecogniser(speed=10))

    first = await engine.recognise(TEN_SECONDS, "a")
    await engine.recognise(TEN_SECONDS, "b")

    assert first == await MemoryRecogniser(speed=10).recognise(TEN_SECONDS, "a")
    assert engine.facts == MemoryRecogniser().facts
    assert engine.engine_seconds == 2.0


async def test_usage_is_logged_every_five_minutes_and_at_the_end() -> None:
    clock, engine = FakeClock(), MeteredRecogniser(MemoryRecogniser(speed=10))

    with capture_logs() as events:
        reporting = asyncio.create_task(report_usage(engine, PRICES, clock))
        await clock.rest()
        await engine.recognise(TEN_SECONDS, "a")
        await clock.advance(REPORT_SECONDS)
        await clock.advance(100)
        reporting.cancel()
        await asyncio.wait([reporting])

    told = [(event["up_seconds"], event["engine_seconds"], event["idle_seconds"]) for event in events]
    assert told == [(300.0, 1.0, 299.0), (400.0, 1.0, 399.0)]
