"""Urgent jobs first: two subscriptions pulled as one."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.support.clock import FakeClock
from tests.support.queues.consumer_harness import ScriptedHandler, fitness_of
from tests.support.queues.scripted_subscription import ScriptedSubscription, make_delivery
from worker.core.delivery.consumer import Consumer
from worker.core.delivery.intake import HEAD_START_SECONDS, MOST_URGENT_IN_A_ROW, Source, UrgentFirst, order_of
from worker.errors import QueueServiceError, SubscriptionNotFound

FORBIDDEN = QueueServiceError("pull from", "urgent", "403", refused=True)


class Pair:
    """Both subscriptions, scripted, and the consumer that pulls them as one."""

    def __init__(self, slots: int) -> None:
        self.clock = FakeClock()
        self.urgent, self.plain = ScriptedSubscription(), ScriptedSubscription()
        self.both = UrgentFirst(self.urgent, self.plain, self.clock, random.Random(1))
        self.handler = ScriptedHandler(self.clock)
        self.consumer = Consumer(
            self.both,
            self.handler,
            slots=slots,
            max_parked=2,
            ack_deadline_seconds=60,
            max_attempts=3,
            fitness=fitness_of(self._pass, self.clock),
            fuse_threshold=10,
            clock=self.clock,
            rng=random.Random(1),
            chores={"urgent": self.both.tend},
        )
        self.run = asyncio.create_task(self.consumer.run())

    async def _pass(self) -> None:
        await self.clock.sleep(0)

    async def finish(self, name: str) -> None:
        self.handler.finish(name)
        await self.clock.rest()


@asynccontextmanager
async def pair(slots: int = 1) -> AsyncIterator[Pair]:
    opened = Pair(slots)
    yield opened
    opened.consumer.stop("end of test")
    opened.consumer.stop("end of test")
    await opened.clock.advance(10)
    if opened.run.done() and not opened.run.cancelled():
        opened.run.exception()


def test_urgent_messages_lead_until_there_were_many_in_a_row() -> None:
    assert order_of(0, urgent_rests=False) == (Source.URGENT, Source.PLAIN)
    assert order_of(MOST_URGENT_IN_A_ROW, urgent_rests=False) == (Source.PLAIN, Source.URGENT)
    assert order_of(0, urgent_rests=True) == (Source.PLAIN,)


async def test_an_urgent_job_behind_a_hundred_queued_ones_starts_as_soon_as_a_slot_is_free() -> None:
    async with pair() as p:
        p.plain.deliver(*(make_delivery(f"plain-{number}") for number in range(100)))
        await p.clock.advance(1)
        p.urgent.deliver(make_delivery("urgent"))
        await p.clock.advance(30)

        await p.finish("plain-0")

        assert p.handler.started == ["plain-0", "urgent"]


async def test_a_plain_job_waits_a_tenth_of_a_second_for_an_urgent_subscription_without_messages() -> None:
    async with pair(slots=2) as p:
        p.plain.deliver(make_delivery("plain-1"))

        await p.clock.advance(HEAD_START_SECONDS / 2)
        before = list(p.handler.started)
        await p.clock.advance(HEAD_START_SECONDS)
        p.plain.deliver(make_delivery("plain-2"))
        await p.clock.rest()

        assert (before, p.handler.started) == ([], ["plain-1", "plain-2"])


async def test_an_urgent_job_starts_at_once_while_the_plain_subscription_has_no_messages() -> None:
    async with pair() as p:
        await p.clock.advance(20)

        p.urgent.deliver(make_delivery("urgent"))
        await p.clock.rest()

        assert p.handler.started == ["urgent"]


async def test_no_pull_is_in_flight_while_every_slot_is_taken() -> None:
    async with pair() as p:
        p.plain.deliver(make_delivery("plain"))
        await p.clock.advance(60)

        assert (len(p.urgent.pulls), p.urgent.cancelled_pulls) == (1, 1)
        assert len(p.plain.pulls) == 1


async def test_a_stream_of_urgent_jobs_lets_plain_ones_through() -> None:
    async with pair() as p:
        await p.clock.rest()
        for number in range(20):
            p.urgent.deliver(make_delivery(f"urgent-{number}"))
        p.plain.deliver(make_delivery("plain"))

        await p.clock.advance(1)
        for _ in range(MOST_URGENT_IN_A_ROW):
            await p.finish(p.handler.started[-1])
            await p.clock.advance(1)

        assert p.handler.started.index("plain") == MOST_URGENT_IN_A_ROW


async def test_leases_and_verdicts_go_to_the_subscription_that_delivered() -> None:
    async with pair(slots=2) as p:
        p.urgent.deliver(make_delivery("urgent"))
        await p.clock.advance(1)
        p.plain.deliver(make_delivery("plain"))
        await p.clock.advance(31)
        await p.finish("urgent")
        await p.finish("plain")

        assert (("ack-urgent",), 60) in p.urgent.extensions
        assert (("ack-plain",), 60) in p.plain.extensions
        assert (p.urgent.acks, p.plain.acks) == (["ack-urgent"], ["ack-plain"])


@pytest.mark.parametrize("fault", [{"extend_error": FORBIDDEN}, {"extend_hangs": True}], ids=["refused", "hung"])
@pytest.mark.parametrize("broken", ["urgent", "plain"])
async def test_a_subscription_whose_leases_cannot_be_extended_costs_the_other_none(
    broken: str, fault: dict[str, Any]
) -> None:
    async with pair(slots=2) as p:
        p.urgent.deliver(make_delivery("urgent"))
        await p.clock.advance(1)
        p.plain.deliver(make_delivery("plain"))
        await p.clock.advance(1)

        for name, value in fault.items():
            setattr(getattr(p, broken), name, value)
        await p.clock.advance(120)

        assert p.handler.cancelled == [broken]


async def test_a_subscription_that_takes_no_nack_does_not_keep_the_messages_of_the_other() -> None:
    async with pair(slots=2) as p:
        p.urgent.deliver(make_delivery("urgent"))
        await p.clock.advance(1)
        p.plain.deliver(make_delivery("plain"))
        await p.clock.advance(1)
        p.plain.nack_error = FORBIDDEN

        p.consumer.stop("SIGTERM")
        await p.clock.advance(10)

        assert (p.run.done(), p.urgent.nacks) == (True, [("ack-urgent",)])


async def test_an_urgent_delivery_whose_lease_is_lost_is_cancelled_by_its_own_id() -> None:
    async with pair() as p:
        p.urgent.deliver(make_delivery("urgent"))
        p.urgent.expired = frozenset({"ack-urgent"})

        await p.clock.advance(1)

        assert p.handler.cancelled == ["urgent"]


async def test_plain_jobs_go_on_while_the_urgent_subscription_fails_and_health_has_the_reason() -> None:
    async with pair(slots=3) as p:
        p.urgent.fail_pull(FORBIDDEN)
        p.plain.deliver(make_delivery("plain-1"))
        await p.clock.advance(0.3)
        reason = p.consumer.snapshot.urgent_pull_failure
        p.plain.deliver(make_delivery("plain-2"))
        await p.clock.advance(2)
        p.urgent.deliver(make_delivery("urgent"))
        await p.clock.advance(1)

        assert reason == str(FORBIDDEN)
        assert p.handler.started == ["plain-1", "plain-2", "urgent"]
        assert p.consumer.snapshot.urgent_pull_failure == ""


async def test_an_urgent_subscription_that_is_gone_ends_the_worker() -> None:
    async with pair() as p:
        p.urgent.fail_pull(SubscriptionNotFound("urgent"))

        await p.clock.advance(10)

        with pytest.raises(SubscriptionNotFound):
            await p.run


async def test_what_arrives_while_nothing_may_be_pulled_is_nacked() -> None:
    async with pair(slots=2) as p:
        p.plain.deliver(make_delivery("parked-1"), make_delivery("plain"))
        await p.clock.advance(1)
        p.handler.unpark("parked-1")
        await p.clock.rest()

        p.urgent.deliver(make_delivery("urgent"))
        await p.clock.advance(3)

        assert p.handler.started == ["parked-1", "plain", "parked-1 again"]
        assert p.urgent.nacks == [("ack-urgent",)]


async def test_a_stop_leaves_no_pull_in_flight() -> None:
    async with pair(slots=2) as p:
        await p.clock.advance(1)

        p.consumer.stop("SIGTERM")
        await p.clock.advance(2)

        assert (p.run.done(), p.urgent.cancelled_pulls, p.plain.cancelled_pulls) == (True, 1, 1)
