"""Looking never consumes: what is held is extended while it is looked at, and handed back at the end."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from tests.support.clock import FakeClock
from tests.support.subscription import ScriptedSubscription
from tests.unit.core.delivery.dead_letter_messages import enveloped, forwarded
from worker.core.delivery.holding import Limits, hold_dead_letters
from worker.errors import QueueServiceError, SubscriptionNotFound

UNAVAILABLE = QueueServiceError("extend", "dead-letters", "503")


def filled(*answers: list[str]) -> ScriptedSubscription:
    subscription = ScriptedSubscription()
    for names in answers:
        subscription.deliver(*(enveloped(name, run=int(name[1:])) for name in names))
    return subscription


async def test_it_pulls_until_three_empty_answers_in_a_row() -> None:
    subscription = filled(["d1"], [], [], ["d2"], [], [], [])

    async with hold_dead_letters(
        subscription, lease_seconds=60, limits=Limits(messages=1000), clock=FakeClock()
    ) as holding:
        assert [entry.run for entry in holding.entries] == [1, 2]

    assert len(subscription.pulls) == 7


async def test_it_pulls_no_more_than_it_was_told_to_hold() -> None:
    subscription = filled(["d1", "d2", "d3"])

    async with hold_dead_letters(
        subscription, lease_seconds=60, limits=Limits(messages=2), clock=FakeClock()
    ) as holding:
        assert len(holding.entries) == 2

    assert subscription.pulls == [2]


async def test_leases_are_extended_at_half_time_and_released_at_the_end() -> None:
    clock = FakeClock()
    subscription = filled(["d1", "d2"], [], [], [])

    async with hold_dead_letters(subscription, lease_seconds=60, limits=Limits(messages=1000), clock=clock):
        await clock.advance(90)
        assert subscription.extensions == [(("ack-d1", "ack-d2"), 60)] * 3

    assert subscription.nacks == [("ack-d1", "ack-d2")]
    assert subscription.acks == []


async def test_failed_extensions_do_not_end_the_holding() -> None:
    clock = FakeClock()
    subscription = filled(["d1"], [], [], [])
    subscription.extend_error = UNAVAILABLE

    async with hold_dead_letters(subscription, lease_seconds=60, limits=Limits(messages=1000), clock=clock):
        await clock.advance(60)
        assert len(subscription.extensions) == 2

    assert subscription.nacks == [("ack-d1",)]


async def test_what_was_settled_is_not_released() -> None:
    subscription = filled(["d1", "d2"], [], [], [])

    async with hold_dead_letters(
        subscription, lease_seconds=60, limits=Limits(messages=1000), clock=FakeClock()
    ) as holding:
        await holding.settle(holding.entries[0])

    assert subscription.acks == ["ack-d1"]
    assert subscription.nacks == [("ack-d2",)]


async def test_settling_acks_every_copy() -> None:
    subscription = ScriptedSubscription()
    subscription.deliver(forwarded("f1"), forwarded("f2"))
    for _ in range(3):
        subscription.deliver()

    async with hold_dead_letters(
        subscription, lease_seconds=60, limits=Limits(messages=1000), clock=FakeClock()
    ) as holding:
        await holding.settle(holding.entries[0])

    assert subscription.acks == ["ack-f1", "ack-f2"]
    assert subscription.nacks == []


async def test_an_ack_that_fails_is_no_error() -> None:
    subscription = filled(["d1"], [], [], [])
    subscription.ack_error = UNAVAILABLE

    async with hold_dead_letters(
        subscription, lease_seconds=60, limits=Limits(messages=1000), clock=FakeClock()
    ) as holding:
        await holding.settle(holding.entries[0])

    assert subscription.acks == ["ack-d1"]


async def test_a_failed_pull_releases_what_was_held_and_is_raised() -> None:
    subscription = filled(["d1"])
    subscription.fail_pull(SubscriptionNotFound("dead-letters"))
    holding = hold_dead_letters(subscription, lease_seconds=60, limits=Limits(messages=1000), clock=FakeClock())

    with pytest.raises(SubscriptionNotFound):
        await AsyncExitStack().enter_async_context(holding)

    assert subscription.nacks == [("ack-d1",)]


@pytest.mark.parametrize("fault", [UNAVAILABLE, None])
async def test_a_release_that_fails_or_hangs_does_not_hold_the_operator_up(fault: Exception | None) -> None:
    clock = FakeClock()
    subscription = filled(["d1"], [], [], [])
    subscription.nack_error, subscription.nack_hangs = fault, fault is None

    async def look() -> None:
        async with hold_dead_letters(subscription, lease_seconds=60, limits=Limits(messages=1000), clock=clock):
            pass

    looking = asyncio.create_task(look())
    await clock.advance(10)

    await looking
    assert subscription.nacks == [("ack-d1",)]
