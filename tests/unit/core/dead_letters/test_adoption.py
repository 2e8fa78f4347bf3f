"""Adoption of forwarded messages, on the in-memory Pub/Sub with a stopped clock."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.support.clock import FakeClock
from tests.support.queues.scripted_subscription import ScriptedSubscription, make_delivery
from tests.unit.core.dead_letters.dead_letter_messages import enveloped, forwarded, job_bytes
from worker.adapters.memory.pubsub import MemoryPubSub
from worker.core.dead_letters.adoption import FIRST_PULL_MESSAGES, LOOK_BYTES, PULL_BYTES, Adoption
from worker.core.dead_letters.entries import Forwarded
from worker.errors import (
    AudioForbidden,
    ClaimHeld,
    MachineFault,
    QueueServiceError,
    ResourceDown,
    StorageServiceError,
    SubscriptionNotFound,
)
from worker.ports import Subscription

REFUSED = QueueServiceError("pull from", "dead-sub", "403", refused=True)


class Pool:
    """A jobs subscription that forwards after 5 deliveries, and workers that look at what it forwarded."""

    def __init__(self, adopt: Callable[[Forwarded], Awaitable[None]] | None = None) -> None:
        self.clock = FakeClock()
        self.broker = MemoryPubSub(self.clock)
        for name in ("jobs", "dead"):
            self.broker.create_topic(name)
        self.broker.create_subscription("jobs-sub", topic="jobs", dead_letter_topic="dead", max_delivery_attempts=5)
        self.broker.create_subscription("dead-sub", topic="dead", ack_deadline_seconds=10)
        self.adopted: list[Forwarded] = []
        self.when: list[float] = []
        self.why_not = ""
        self.rng = random.Random(1)
        self._adopt = adopt or self._note
        self._tasks: list[asyncio.Task[None]] = []

    async def _note(self, letter: Forwarded) -> None:
        await self.clock.sleep(0.1)
        self.adopted.append(letter)
        self.when.append(self.clock.monotonic())

    def start(self, subscription: Subscription | None = None) -> asyncio.Task[None]:
        chore = Adoption(
            subscription or self.broker.subscription("dead-sub"),
            self._adopt,
            why_not=lambda: self.why_not,
            patience_seconds=31.0,
            clock=self.clock,
            rng=self.rng,
        )
        self._tasks.append(asyncio.create_task(chore.run()))
        return self._tasks[-1]

    def bury(self, count: int) -> None:
        for number in range(count):
            letter = enveloped(data=job_bytes(job_id=f"vod-{number}"))
            self.broker.publish("dead", letter.data, letter.attributes, "")

    async def let_down(self, *job_ids: str) -> None:
        """Publish jobs and refuse each as often as it takes to be forwarded."""
        for job_id in job_ids:
            self.broker.publish("jobs", job_bytes(job_id=job_id), {"own": "1"}, "")
        subscription = self.broker.subscription("jobs-sub")
        for _ in range(5):
            pulled = await subscription.pull(100)
            await subscription.extend([delivery.ack_id for delivery in pulled], 0)

    @property
    def free(self) -> list[str]:
        """Return the letters that a console could pull now."""
        return [held.delivery.message_id for held in self.broker.queue("dead-sub").held if held.lease_ends_at is None]

    @property
    def left(self) -> int:
        return len(self.broker.queue("dead-sub").held)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def test_a_forwarded_job_is_adopted_within_two_minutes_with_no_console_used() -> None:
    pool = Pool()
    pool.start()
    await pool.clock.advance(300)
    await pool.let_down("vod-1")
    forwarded_at = pool.clock.monotonic()

    await pool.clock.advance(120)

    (letter,) = pool.adopted
    assert letter.deliveries == 5
    assert letter.original.attributes == {"own": "1"}
    assert pool.when[0] - forwarded_at < 120
    assert pool.left == 0
    await pool.stop()


async def test_a_forwarded_letter_is_found_among_envelopes_which_are_nacked_at_once() -> None:
    pool = Pool()
    pool.bury(100)
    await pool.let_down("vod-1")
    pool.start()

    await pool.clock.advance(120)

    assert len(pool.adopted) == 1
    assert (pool.left, len(pool.free)) == (100, 100)
    await pool.stop()


async def test_a_forwarded_letter_behind_thousands_of_envelopes_is_adopted_within_two_minutes() -> None:
    pool = Pool()
    pool.bury(2000)
    await pool.let_down("vod-late")
    pool.start()

    await pool.clock.advance(120)

    assert len(pool.adopted) == 1
    assert (pool.left, len(pool.free)) == (2000, 2000)
    await pool.stop()


async def test_a_look_does_not_pull_the_whole_of_many_large_letters() -> None:
    pool, subscription = Pool(), ScriptedSubscription()
    large = replace(make_delivery(data=b"x" * (PULL_BYTES // 2)), attributes={"envelope": "1"})
    subscription.deliver(large, *[replace(large, data=b"{}")] * (FIRST_PULL_MESSAGES - 1))
    for _ in range(100):
        subscription.deliver(large, large)
    pool.start(subscription)

    await pool.clock.advance(40)

    assert len(subscription.pulls) == 1 + LOOK_BYTES // PULL_BYTES
    await pool.stop()


async def test_two_minutes_suffice_for_a_new_worker_before_300_letters_and_a_dead_workers_claim() -> None:
    pool, tried = Pool(), []

    async def held_at_first(letter: Forwarded) -> None:
        tried.append(letter)
        if len(tried) == 1:
            raise ClaimHeld("vod-1", "a worker that died")
        await pool._note(letter)

    pool._adopt = held_at_first
    pool.bury(300)
    await pool.let_down("vod-1")
    pool.start()

    await pool.clock.advance(120)

    assert len(pool.adopted) == 1
    await pool.stop()


async def test_letters_with_envelopes_are_away_from_a_console_for_no_time() -> None:
    pool = Pool()
    pool.bury(10)
    pool.start()
    missing = []

    for _ in range(240):
        await pool.clock.advance(0.5)
        missing.append(10 - len(pool.free))

    assert set(missing) == {0}
    await pool.stop()


async def test_several_workers_adopt_each_letter_once() -> None:
    pool = Pool()
    await pool.let_down(*(f"vod-{number}" for number in range(30)))
    for _ in range(5):
        pool.start()

    await pool.clock.advance(120)

    assert len(pool.adopted) == 30
    assert len({letter.original.data for letter in pool.adopted}) == 30
    assert pool.left == 0
    await pool.stop()


async def test_it_pulls_once_a_minute_at_most() -> None:
    pool, subscription = Pool(), ScriptedSubscription()
    pool.start(subscription)

    for _ in range(600):
        subscription.deliver()
    await pool.clock.advance(600)

    assert 9 <= len(subscription.pulls) <= 10
    await pool.stop()


async def test_a_pull_asks_for_few_messages_and_for_fewer_where_they_are_large() -> None:
    pool, subscription = Pool(), ScriptedSubscription()
    subscription.deliver(forwarded(data=b"x" * (PULL_BYTES // 4)))
    subscription.deliver()
    pool.start(subscription)

    await pool.clock.advance(120)

    assert subscription.pulls[:2] == [FIRST_PULL_MESSAGES, 4]
    await pool.stop()


async def test_a_worker_that_is_not_healthy_leaves_them_alone() -> None:
    pool = Pool()
    pool.why_not = "the fuse is open"
    await pool.let_down("vod-1")
    pool.start()

    await pool.clock.advance(600)
    assert (pool.adopted, pool.left) == ([], 1)

    pool.why_not = ""
    await pool.clock.advance(61)
    assert len(pool.adopted) == 1
    await pool.stop()


async def test_leases_are_kept_while_many_are_adopted() -> None:
    pool = Pool()

    async def slowly(letter: Forwarded) -> None:
        await pool.clock.sleep(7)
        pool.adopted.append(letter)

    pool._adopt = slowly
    await pool.let_down(*(f"vod-{number}" for number in range(20)))
    pool.start()
    pool.start()

    await pool.clock.advance(300)

    assert len(pool.adopted) == 20
    assert pool.left == 0
    await pool.stop()


@pytest.mark.parametrize(
    "error",
    [
        MachineFault("TEMP_DIR", "full"),
        ResourceDown("gs://state", "503"),
        StorageServiceError("write", "gs://state/o", "503"),
        QueueServiceError("publish to", "completions", "403", refused=True),
    ],
)
async def test_an_error_of_the_worker_or_a_service_gives_all_letters_back_and_is_tried_again(
    error: Exception, events: list[dict[str, Any]]
) -> None:
    pool, tried = Pool(), []

    async def fail(letter: Forwarded) -> None:
        tried.append(letter)
        if len(tried) == 1:
            raise error
        await pool._note(letter)

    pool._adopt = fail
    await pool.let_down("vod-1", "vod-2", "vod-3")
    pool.start()

    await pool.clock.advance(50)
    assert (len(tried), pool.adopted, len(pool.free)) == (1, [], 3)
    assert [event["left"] for event in events if event["event"] == "dead_letter.not_adopted"] == [3]

    await pool.clock.advance(60)
    assert (len(pool.adopted), pool.left) == (3, 0)
    await pool.stop()


@pytest.mark.parametrize("error", [ValueError("a defect"), AudioForbidden("gs://b/o", "no"), asyncio.CancelledError()])
async def test_a_letter_that_cannot_be_adopted_is_nacked_and_delays_no_other(error: BaseException) -> None:
    pool = Pool()

    async def fail_one(letter: Forwarded) -> None:
        if b"vod-2" in letter.original.data:
            raise error
        await pool._note(letter)

    pool._adopt = fail_one
    await pool.let_down("vod-1", "vod-2", "vod-3")
    chore = pool.start()

    await pool.clock.advance(300)

    assert (len(pool.adopted), pool.left, len(pool.free)) == (2, 1, 1)
    assert not chore.done()
    await pool.stop()


async def test_a_job_that_a_dead_worker_held_is_adopted_in_the_same_look() -> None:
    pool, tried = Pool(), []

    async def held_at_first(letter: Forwarded) -> None:
        tried.append(pool.clock.monotonic())
        if len(tried) == 1:
            raise ClaimHeld("vod-1", "a worker that died")
        await pool._note(letter)

    pool._adopt = held_at_first
    await pool.let_down("vod-1")
    pool.start()

    await pool.clock.advance(120)

    assert tried[1] - tried[0] == pytest.approx(31)
    assert pool.left == 0
    await pool.stop()


async def test_a_job_that_a_live_worker_holds_is_left_to_it_for_the_moment() -> None:
    pool = Pool()

    async def held(_: Forwarded) -> None:
        raise ClaimHeld("vod-1", "another worker")

    pool._adopt = held
    await pool.let_down("vod-1")
    pool.start()

    await pool.clock.advance(300)

    assert pool.left == len(pool.free) == 1
    await pool.stop()


@pytest.mark.parametrize("error", [SubscriptionNotFound("dead-sub"), REFUSED])
async def test_a_missing_or_refused_subscription_is_logged_once_and_polled_slowly(
    error: Exception, events: list[dict[str, Any]]
) -> None:
    pool, subscription = Pool(), ScriptedSubscription()
    for _ in range(3):
        subscription.fail_pull(error)
    subscription.deliver(forwarded())
    chore = pool.start(subscription)

    await pool.clock.advance(1300)
    assert len(subscription.pulls) == 3
    assert not chore.done()

    await pool.clock.advance(600)
    told = [event["event"] for event in events if event["event"].startswith("adoption.")]
    assert told == ["adoption.refused", "adoption.resumed"]
    assert len(pool.adopted) == 1
    await pool.stop()


async def test_an_outage_of_the_subscription_is_waited_out() -> None:
    pool, subscription = Pool(), ScriptedSubscription()
    subscription.fail_pull(QueueServiceError("pull from", "dead-sub", "503"))
    subscription.deliver(forwarded())
    pool.start(subscription)

    await pool.clock.advance(120)

    assert (len(pool.adopted), subscription.acks) == (1, ["ack-f1"])
    await pool.stop()


async def test_a_defect_of_the_chore_does_not_end_the_worker(events: list[dict[str, Any]]) -> None:
    pool, subscription = Pool(), ScriptedSubscription()
    subscription.fail_pull(ValueError("no vendor's error"))
    subscription.deliver(forwarded())
    chore = pool.start(subscription)

    await pool.clock.advance(120)

    assert (len(pool.adopted), chore.done()) == (1, False)
    assert [event["reason"] for event in events if event["event"] == "adoption.failed"] == ["no vendor's error"]
    await pool.stop()


async def test_a_letter_that_cannot_be_acknowledged_does_not_end_the_chore() -> None:
    pool, subscription = Pool(), ScriptedSubscription()
    subscription.ack_error = subscription.extend_error = subscription.nack_error = REFUSED
    subscription.deliver(forwarded(), enveloped())
    chore = pool.start(subscription)

    await pool.clock.advance(120)

    assert (len(pool.adopted), chore.done()) == (1, False)
    await pool.stop()


async def test_a_chore_that_is_stopped_gives_back_what_it_holds() -> None:
    pool = Pool()

    async def hang(_: Forwarded) -> None:
        await asyncio.Event().wait()

    pool._adopt = hang
    await pool.let_down("vod-1", "vod-2")
    pool.start()
    await pool.clock.advance(60)
    assert pool.free == []

    stopping = asyncio.create_task(pool.stop())
    await pool.clock.advance(1)

    await stopping
    assert len(pool.free) == 2


async def test_a_publishers_own_attribute_envelope_does_not_keep_a_forwarded_job_from_its_events() -> None:
    pool, subscription = Pool(), ScriptedSubscription()
    letter = forwarded(envelope="1", dead_letter_id="mine")
    subscription.deliver(letter, replace(enveloped("stray"), attributes={"own": "1"}))
    pool.start(subscription)

    await pool.clock.advance(60)

    assert [each.original.message_id for each in pool.adopted] == ["f1"]
    assert subscription.nacks == [("ack-stray",)]
    await pool.stop()
