"""Leases as the consumer keeps them; the ack deadline is 10 s, a job lasts as long as the test says."""

import asyncio
from typing import Any

import pytest

from tests.support.queues.consumer_harness import room
from tests.support.queues.scripted_subscription import make_delivery
from worker.core.delivery.lease import LeaseKeeper
from worker.errors import AudioNotFound, QueueServiceError, SubscriptionNotFound

UNAVAILABLE = QueueServiceError("extend", "jobs", "503")


async def test_a_delivery_is_extended_at_once_and_then_at_half_time_however_long_its_job() -> None:
    async with room() as r:
        await r.deliver("m1")
        assert r.subscription.extensions == [(("ack-m1",), 10)]

        await r.clock.advance(3600)
        await r.finish("m1")

        assert len(r.subscription.extensions) == 1 + 3600 // 5
        assert r.subscription.acks == ["ack-m1"]
        assert r.handler.cancelled == []


async def test_one_request_extends_all_leases_and_nothing_is_sent_without_any() -> None:
    async with room() as r:
        await r.clock.advance(60)
        assert r.subscription.extensions == []

        await r.deliver("m1", "m2")
        await r.clock.advance(5)

        assert r.subscription.extensions == [(("ack-m1", "ack-m2"), 10)] * 2


async def test_a_settled_delivery_is_extended_no_more() -> None:
    async with room() as r:
        await r.deliver("m1")
        await r.finish("m1")

        await r.clock.advance(60)

        assert len(r.subscription.extensions) == 1


async def test_a_parked_delivery_stays_leased() -> None:
    async with room() as r:
        await r.deliver("parked1")

        await r.clock.advance(60)

        assert len(r.subscription.extensions) == 13
        assert r.handler.cancelled == []


async def test_failed_extensions_are_tried_again_and_one_success_keeps_the_lease() -> None:
    async with room() as r:
        await r.deliver("m1")
        r.subscription.extend_error = UNAVAILABLE
        await r.clock.advance(9)

        r.subscription.extend_error = None
        await r.clock.advance(9)

        assert r.handler.cancelled == []


async def test_a_lease_without_confirmation_until_its_deadline_is_lost_and_its_message_untouched(
    events: list[dict[str, Any]],
) -> None:
    async with room() as r:
        await r.deliver("m1")
        r.subscription.extend_error = UNAVAILABLE
        await r.clock.advance(9.9)
        assert r.handler.cancelled == []

        await r.clock.advance(0.1)

        assert r.handler.cancelled == ["m1"]
        assert (r.subscription.acks, r.subscription.nacks) == ([], [])
        assert (r.handler.recorded, r.consumer.snapshot.free_slots) == ([], 2)
        lost = [event for event in events if event["event"] == "lease.lost"]
        assert [event["message_id"] for event in lost] == ["m1"]
        assert [event["outcome"] for event in events if event["event"] == "delivery.settled"] == ["lost"]


async def test_a_hung_extension_is_cut_off_and_tried_again_before_the_deadline() -> None:
    async with room() as r:
        await r.deliver("m1")
        r.subscription.extend_hangs = True
        await r.clock.advance(6)

        r.subscription.extend_hangs = False
        await r.clock.advance(12)

        assert r.handler.cancelled == []


async def test_a_hung_extension_does_not_hide_that_the_lease_is_lost() -> None:
    async with room() as r:
        r.subscription.extend_hangs = True
        await r.deliver("m1")

        await r.clock.advance(10)

        assert r.handler.cancelled == ["m1"]


async def test_a_hung_pull_harms_no_lease() -> None:
    async with room(slots=2) as r:
        await r.deliver("m1")
        assert r.subscription.pulls == [2, 1]

        await r.clock.advance(600)

        assert r.handler.cancelled == []


async def test_an_ack_id_that_the_subscription_calls_expired_is_lost_alone() -> None:
    async with room() as r:
        await r.deliver("m1", "m2")
        r.subscription.expired = frozenset({"ack-m1"})

        await r.clock.advance(5)

        assert r.handler.cancelled == ["m1"]
        await r.finish("m2")
        assert r.subscription.acks == ["ack-m2"]
        assert r.subscription.nacks == []


async def test_an_error_raised_by_a_job_that_lost_its_lease_is_no_verdict() -> None:
    async with room(fuse_threshold=1) as r:
        r.handler.error_on_cancel = AudioNotFound("gs://b/o")
        await r.deliver("m1")
        r.subscription.expired = frozenset({"ack-m1"})

        await r.clock.advance(5)

        assert (r.handler.given_up, r.self_test.runs) == ([], 0)
        assert (r.subscription.acks, r.subscription.nacks) == ([], [])


async def test_a_lost_lease_stays_untouched_by_a_shutdown_while_its_job_still_lets_go() -> None:
    async with room() as r:
        r.handler.cancel_takes_seconds = 60
        await r.deliver("m1")
        r.subscription.expired = frozenset({"ack-m1"})
        await r.clock.advance(5)

        await r.stop()
        await r.clock.advance(6)

        assert r.run.done()
        assert r.subscription.nacks == []


async def test_a_deleted_subscription_is_noticed_by_an_extension_too() -> None:
    async with room(slots=1) as r:
        await r.deliver("m1")
        r.subscription.extend_error = SubscriptionNotFound("jobs")

        await r.clock.advance(5)

        with pytest.raises(SubscriptionNotFound):
            await r.run


async def test_a_nack_waits_for_an_extension_in_flight_which_would_revert_it() -> None:
    async with room() as r:
        await r.deliver("m1")
        r.subscription.extend_hangs = True
        await r.clock.advance(5)

        await r.fail("m1", UNAVAILABLE)
        assert r.subscription.nacks == []
        await r.clock.advance(2)

        assert r.subscription.nacks == [("ack-m1",)]


async def test_a_nack_that_hangs_does_not_hold_up_the_leases_of_others() -> None:
    async with room(slots=3) as r:
        await r.deliver("m1", "m2")
        r.subscription.nack_hangs = True
        await r.fail("m1", UNAVAILABLE)

        await r.clock.advance(30)

        assert r.subscription.nacks == [("ack-m1",)]
        assert r.handler.cancelled == []


async def test_the_loss_of_a_lease_does_not_cancel_a_job_that_has_ended() -> None:
    async with room() as r:
        keeper = LeaseKeeper(r.subscription, seconds=10, clock=r.clock, on_lost=[].append)
        watch = asyncio.create_task(keeper.watch())

        with keeper.hold(make_delivery("m1")) as lease:
            lease.is_cancellable = False
            await r.clock.advance(10)
            await asyncio.sleep(0)

        assert lease.lost == "the last confirmed deadline has passed"
        watch.cancel()


async def test_a_stop_wins_over_a_lost_lease(events: list[dict[str, Any]]) -> None:
    async with room() as r:
        await r.deliver("m1")
        await r.clock.advance(9)

        r.consumer._leases._lose("ack-m1", "expired")
        await r.stop()

        assert [event["outcome"] for event in events if event["event"] == "delivery.settled"] == ["stopped"]
        assert r.subscription.nacks == []
