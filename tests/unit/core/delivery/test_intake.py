import asyncio

import pytest
from structlog.testing import capture_logs

from tests.support.queues.consumer_harness import Room, room

GONE = "the GPU is gone and the budget is spent"


class Readiness:
    """Says what a test has it say."""

    def __init__(self, reason: str = "") -> None:
        self.reason = reason

    def __call__(self) -> str:
        return self.reason


def pulls(r: Room) -> int:
    return len(r.subscription.pulls)


async def test_nothing_is_pulled_while_no_job_could_be_done_and_the_snapshot_says_why() -> None:
    async with room(why_idle=Readiness(GONE)) as r:
        await r.clock.advance(3600)

        assert pulls(r) == 0
        assert r.consumer.snapshot.intake_stopped_because == GONE


async def test_pulling_goes_on_within_a_second_of_being_ready_again() -> None:
    ready = Readiness(GONE)
    async with room(why_idle=ready) as r:
        await r.clock.advance(60)

        ready.reason = ""
        await r.clock.advance(1)

        assert pulls(r) == 1
        assert r.consumer.snapshot.intake_stopped_because == ""


async def test_a_stop_of_the_intake_is_logged_once_and_so_is_its_end() -> None:
    ready = Readiness(GONE)
    with capture_logs() as events:
        async with room(why_idle=ready) as r:
            await r.clock.advance(60)
            ready.reason = ""
            await r.clock.advance(1)

    told = [(event["event"], event.get("reason")) for event in events if event["event"].startswith("intake.")]
    assert told == [("intake.stopped", GONE), ("intake.resumed", None)]


async def test_running_jobs_are_finished_while_the_intake_is_stopped() -> None:
    ready = Readiness()
    async with room(slots=1, why_idle=ready) as r:
        await r.deliver("m1")
        ready.reason = GONE

        await r.finish("m1")
        before = pulls(r)
        await r.clock.advance(60)

        assert r.subscription.acks == ["ack-m1"]
        assert pulls(r) == before


async def test_deliveries_of_a_pull_in_flight_when_the_intake_stopped_are_nacked() -> None:
    ready = Readiness()
    async with room(slots=2, why_idle=ready) as r:
        ready.reason = GONE

        await r.deliver("m1")

        assert r.handler.started == []
        assert r.subscription.nacks == [("ack-m1",)]


async def test_a_chore_runs_as_long_as_the_consumer() -> None:
    ended = asyncio.Event()

    async def chore() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with room(chores={"sweeping": chore}) as r:
        ended_at_work = ended.is_set()
        await r.stop()
        await r.clock.advance(6)

        assert (ended_at_work, ended.is_set()) == (False, True)


async def test_the_death_of_a_chore_is_the_end_of_the_worker() -> None:
    async def chore() -> None:
        raise ZeroDivisionError

    async with room(chores={"sweeping": chore}) as r:
        await r.clock.advance(6)

        with pytest.raises(ZeroDivisionError):
            await r.run
