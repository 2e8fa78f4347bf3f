import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.clock import FakeClock
from worker.core.jobs.engine_trust import FAILURES_TO_DOUBT, PROBE_SECONDS, EngineTrust
from worker.errors import GpuNotAvailable


class ScriptedProbe:
    """An engine that fails until the test repairs it."""

    def __init__(self) -> None:
        self.runs = 0
        self.engine_is_back = False

    async def __call__(self) -> None:
        self.runs += 1
        if not self.engine_is_back:
            raise GpuNotAvailable("still gone")


@asynccontextmanager
async def tended(clock: FakeClock, probe: ScriptedProbe) -> AsyncIterator[EngineTrust]:
    health = EngineTrust(clock)
    task = asyncio.create_task(health.tend(probe))
    await clock.rest()
    yield health
    task.cancel()
    await asyncio.wait([task])


def fail(health: EngineTrust, times: int) -> None:
    for _ in range(times):
        health.record_failure()


def test_it_takes_several_failures_in_a_row_to_doubt_the_engine() -> None:
    health = EngineTrust(FakeClock())

    fail(health, FAILURES_TO_DOUBT - 1)
    still_trusted = health.is_healthy()
    fail(health, 1)

    assert still_trusted
    assert not health.is_healthy()
    assert health.failures_in_a_row == FAILURES_TO_DOUBT


def test_a_success_between_failures_starts_the_count_afresh() -> None:
    health = EngineTrust(FakeClock())

    fail(health, FAILURES_TO_DOUBT - 1)
    health.record_success()
    fail(health, FAILURES_TO_DOUBT - 1)

    assert health.is_healthy()


async def test_a_doubted_engine_is_probed_at_once_and_trusted_after_it_recognises_the_sample() -> None:
    clock, probe = FakeClock(), ScriptedProbe()
    probe.engine_is_back = True

    async with tended(clock, probe) as health:
        fail(health, FAILURES_TO_DOUBT)
        await clock.rest()

        assert (health.is_healthy(), probe.runs) == (True, 1)


async def test_an_engine_that_stays_gone_is_tried_every_minute_until_it_is_back() -> None:
    clock, probe = FakeClock(), ScriptedProbe()

    async with tended(clock, probe) as health:
        fail(health, FAILURES_TO_DOUBT)
        await clock.advance(2 * PROBE_SECONDS + 1)
        assert (health.is_healthy(), probe.runs) == (False, 3)

        probe.engine_is_back = True
        await clock.advance(PROBE_SECONDS)

        assert (health.is_healthy(), probe.runs) == (True, 4)


async def test_a_transcribed_chunk_ends_the_doubt_without_a_probe() -> None:
    clock, probe = FakeClock(), ScriptedProbe()

    async with tended(clock, probe) as health:
        fail(health, FAILURES_TO_DOUBT)
        await clock.rest()
        health.record_success()
        await clock.advance(10 * PROBE_SECONDS)

        assert (health.is_healthy(), probe.runs) == (True, 1)


async def test_a_trusted_engine_is_never_probed() -> None:
    clock, probe = FakeClock(), ScriptedProbe()

    async with tended(clock, probe):
        await clock.advance(100 * PROBE_SECONDS)

    assert probe.runs == 0


def test_an_engine_that_is_not_there_is_doubted_from_the_start() -> None:
    assert not EngineTrust(FakeClock(), doubted=True).is_healthy()
