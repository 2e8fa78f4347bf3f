import asyncio
from datetime import UTC

from worker.adapters.machine.clock import SystemClock


async def test_the_wall_clock_is_aware_and_the_monotonic_one_follows_a_sleep() -> None:
    clock = SystemClock()
    before = clock.monotonic()

    await clock.sleep(0.001)

    assert clock.monotonic() > before
    assert clock.now().tzinfo is UTC


async def test_a_sleep_lets_others_work() -> None:
    clock = SystemClock()
    order: list[str] = []

    async def other() -> None:
        order.append("other")

    task = asyncio.create_task(other())
    await clock.sleep(0)
    order.append("sleeper")

    await task
    assert order == ["other", "sleeper"]
