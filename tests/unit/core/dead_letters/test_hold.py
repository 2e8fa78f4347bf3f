"""Looking never consumes: what is held is extended while it is looked at, and handed back at the end."""

import asyncio
from contextlib import AsyncExitStack, closing
from pathlib import Path

import pytest

from tests.support.clock import FakeClock
from tests.support.queues.scripted_subscription import ScriptedSubscription, make_delivery
from tests.unit.core.dead_letters.dead_letter_messages import enveloped, forwarded, job_bytes
from worker.core.dead_letters.entries import read
from worker.core.dead_letters.hold import (
    FIRST_PULL_MESSAGES,
    MEMORY_BYTES,
    PULL_BYTES,
    PULL_MESSAGES,
    HoldLimits,
    Spool,
    hold_dead_letters,
)
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
        subscription, lease_seconds=60, limits=HoldLimits(messages=1000), clock=FakeClock()
    ) as holding:
        assert [entry.run for entry in holding.entries] == [1, 2]

    assert len(subscription.pulls) == 7
    assert subscription.pulls[-1] == PULL_MESSAGES


async def test_the_pulls_that_may_come_back_empty_are_in_flight_together() -> None:
    subscription = ScriptedSubscription()
    opening = AsyncExitStack()
    holding = hold_dead_letters(
        subscription, lease_seconds=60, limits=HoldLimits(messages=1000), clock=(clock := FakeClock())
    )
    entered = asyncio.create_task(opening.enter_async_context(holding))
    await clock.advance(0)

    assert len(subscription.pulls) == 3
    for _ in range(3):
        subscription.deliver()
    assert (await entered).entries == ()
    assert (len(subscription.pulls), subscription.cancelled_pulls) == (3, 0)
    await opening.aclose()


async def test_pulls_in_flight_together_ask_for_no_more_than_the_limit() -> None:
    subscription = filled(["d1", "d2"], ["d3"], ["d4", "d5"])

    async with hold_dead_letters(
        subscription, lease_seconds=60, limits=HoldLimits(messages=FIRST_PULL_MESSAGES + 1), clock=FakeClock()
    ) as holding:
        assert len(holding.entries) == 5

    assert subscription.pulls[:2] == [FIRST_PULL_MESSAGES, 1]


async def test_no_more_letters_are_pulled_than_the_limit() -> None:
    subscription = filled(["d1", "d2", "d3"])

    async with hold_dead_letters(
        subscription, lease_seconds=60, limits=HoldLimits(messages=2), clock=FakeClock()
    ) as holding:
        assert len(holding.entries) == 2

    assert subscription.pulls == [2]


async def test_leases_are_extended_at_half_time_and_released_at_the_end() -> None:
    clock = FakeClock()
    subscription = filled(["d1", "d2"], [], [], [])

    async with hold_dead_letters(subscription, lease_seconds=60, limits=HoldLimits(messages=1000), clock=clock):
        await clock.advance(90)
        assert subscription.extensions == [(("ack-d1", "ack-d2"), 60)] * 3

    assert subscription.nacks == [("ack-d1", "ack-d2")]
    assert subscription.acks == []


async def test_failed_extensions_do_not_end_the_holding() -> None:
    clock = FakeClock()
    subscription = filled(["d1"], [], [], [])
    subscription.extend_error = UNAVAILABLE

    async with hold_dead_letters(subscription, lease_seconds=60, limits=HoldLimits(messages=1000), clock=clock):
        await clock.advance(60)
        assert len(subscription.extensions) == 2

    assert subscription.nacks == [("ack-d1",)]


async def test_what_was_settled_is_not_released() -> None:
    subscription = filled(["d1", "d2"], [], [], [])

    async with hold_dead_letters(
        subscription, lease_seconds=60, limits=HoldLimits(messages=1000), clock=FakeClock()
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
        subscription, lease_seconds=60, limits=HoldLimits(messages=1000), clock=FakeClock()
    ) as holding:
        await holding.settle(holding.entries[0])

    assert subscription.acks == ["ack-f1", "ack-f2"]
    assert subscription.nacks == []


async def test_an_ack_that_fails_is_no_error() -> None:
    subscription = filled(["d1"], [], [], [])
    subscription.ack_error = UNAVAILABLE

    async with hold_dead_letters(
        subscription, lease_seconds=60, limits=HoldLimits(messages=1000), clock=FakeClock()
    ) as holding:
        await holding.settle(holding.entries[0])

    assert subscription.acks == ["ack-d1"]


async def test_a_failed_pull_releases_what_was_held_and_is_raised() -> None:
    subscription = filled(["d1"])
    subscription.fail_pull(SubscriptionNotFound("dead-letters"))
    holding = hold_dead_letters(subscription, lease_seconds=60, limits=HoldLimits(messages=1000), clock=FakeClock())

    with pytest.raises(SubscriptionNotFound):
        await AsyncExitStack().enter_async_context(holding)

    assert subscription.nacks == [("ack-d1",)]


@pytest.mark.parametrize("fault", [UNAVAILABLE, None])
async def test_a_release_that_fails_or_hangs_does_not_hold_the_operator_up(fault: Exception | None) -> None:
    clock = FakeClock()
    subscription = filled(["d1"], [], [], [])
    subscription.nack_error, subscription.nack_hangs = fault, fault is None

    async def look() -> None:
        async with hold_dead_letters(subscription, lease_seconds=60, limits=HoldLimits(messages=1000), clock=clock):
            pass

    looking = asyncio.create_task(look())
    await clock.advance(10)

    await looking
    assert subscription.nacks == [("ack-d1",)]


async def test_what_a_letter_says_is_read_out_of_the_spool_word_for_word(tmp_path: Path) -> None:
    large = enveloped("large", data=job_bytes(metadata={"k": "x" * 1_000_000}))
    subscription = ScriptedSubscription()
    subscription.deliver(large, forwarded("f1", own="é"))
    for _ in range(3):
        subscription.deliver()
    limits = HoldLimits(messages=1000, folder=tmp_path)

    async with hold_dead_letters(subscription, lease_seconds=60, limits=limits, clock=FakeClock()) as holding:
        told = {entry.copies[0]: holding.letter(entry) for entry in holding.entries}
        copies = [copy for entry in holding.entries for copy in holding.messages(entry)]

    assert told == {"large": read(large), "f1": read(forwarded("f1", own="é"))}
    assert sorted(copy.ack_id for copy in copies) == ["ack-f1", "ack-large"]


async def test_messages_that_are_not_wanted_are_held_without_what_they_say() -> None:
    subscription = filled(["d1", "d2"], [], [], [])

    async with hold_dead_letters(
        subscription,
        lease_seconds=60,
        limits=HoldLimits(messages=1000),
        clock=FakeClock(),
        wanted=lambda entry: entry.run == 2,
    ) as holding:
        first, second = holding.entries
        assert holding.letter(second).run == 2
        with pytest.raises(KeyError):
            holding.letter(first)

    assert subscription.nacks == [("ack-d1", "ack-d2")]


async def test_held_bytes_are_limited_and_the_limit_is_named() -> None:
    subscription = ScriptedSubscription()
    for number in range(20):
        subscription.deliver(enveloped(f"d{number}", data=job_bytes(job_id=f"vod-{number}")))
    limits = HoldLimits(messages=1000, bytes=5 * len(enveloped().data))

    async with hold_dead_letters(subscription, lease_seconds=60, limits=limits, clock=FakeClock()) as holding:
        assert 4 <= len(holding.entries) <= 6
        assert holding.full_of == f"{len(holding.entries)} messages take 0 MiB, which is the most held at once"

    assert len(subscription.nacks[0]) == len(holding.entries)


async def test_no_more_messages_are_asked_for_than_are_likely_to_fit() -> None:
    subscription = ScriptedSubscription()
    subscription.deliver(enveloped("small"))
    subscription.deliver(make_delivery("large", data=b"x" * (PULL_BYTES // 3)))
    for _ in range(3):
        subscription.deliver()

    async with hold_dead_letters(
        subscription, lease_seconds=60, limits=HoldLimits(messages=1000), clock=FakeClock(), wanted=lambda _: False
    ):
        pass

    assert subscription.pulls == [FIRST_PULL_MESSAGES] * 3 + [3, 3]


async def test_gathering_on_ends_as_soon_as_what_is_waited_for_is_there() -> None:
    subscription = filled(["d1"], [], [], [], ["d2"], ["d3"])

    async with hold_dead_letters(
        subscription, lease_seconds=60, limits=HoldLimits(messages=1000), clock=FakeClock()
    ) as holding:
        await holding.gather(lambda: any(entry.run == 2 for entry in holding.entries))
        assert [entry.run for entry in holding.entries] == [1, 2]


async def test_a_letter_that_could_not_be_acknowledged_is_reported() -> None:
    subscription = filled(["d1"], [], [], [])
    subscription.ack_error = UNAVAILABLE

    async with hold_dead_letters(
        subscription, lease_seconds=60, limits=HoldLimits(messages=1000), clock=FakeClock()
    ) as holding:
        assert not await holding.settle(holding.entries[0])


def test_a_spool_beyond_its_memory_is_a_file_without_a_name(tmp_path: Path) -> None:
    message = make_delivery(data=b"x" * (MEMORY_BYTES // 2))

    with closing(Spool(tmp_path)) as spool:
        places = [spool.put(message) for _ in range(3)]
        assert [spool.get(place, "again").data == message.data for place in places] == [True] * 3
        assert spool.bytes > MEMORY_BYTES
        assert list(tmp_path.iterdir()) == []
