import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.clock import FakeClock
from worker.core.tasks import backoff_seconds, bounded


async def test_work_within_its_bound_returns_or_raises_as_it_likes() -> None:
    clock = FakeClock()

    async def divide(by: int) -> float:
        await clock.sleep(0)
        return 1 / by

    assert await bounded(divide(2), 5, clock) == 0.5
    with pytest.raises(ZeroDivisionError):
        await bounded(divide(0), 5, clock)


async def test_work_that_ignores_its_cancellation_is_left_behind_at_its_bound() -> None:
    clock = FakeClock()
    over = asyncio.Event()

    async def stubborn() -> None:
        while not over.is_set():
            try:
                await over.wait()
            except asyncio.CancelledError:
                continue
        raise LookupError

    waiting = asyncio.create_task(bounded(stubborn(), 5, clock))
    await clock.advance(5)

    with pytest.raises(TimeoutError, match="no answer within 5 s"):
        await waiting
    over.set()
    await clock.rest()


@given(failures=st.integers(1, 2000), seed=st.integers(0, 100))
def test_a_pause_doubles_up_to_the_longest_and_is_half_chance(failures: int, seed: int) -> None:
    pause = backoff_seconds(failures, base=0.5, most=30, rng=random.Random(seed))

    nominal = 0.5 * 2.0 ** min(failures - 1, 10)
    assert min(nominal, 30) / 2 <= pause <= min(nominal, 30)
