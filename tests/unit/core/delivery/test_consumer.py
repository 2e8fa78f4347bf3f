"""Slots, dispositions and faults of the consumer; shutdown, leases and the fuse have files of their own."""

from typing import Any

import pytest

from tests.support.queues.consumer_harness import room
from tests.support.queues.scripted_subscription import make_delivery
from worker.errors import (
    AudioNotFound,
    CallFailed,
    Deferred,
    ParkingFull,
    QueueServiceError,
    SubscriptionNotFound,
)

TRANSIENT = CallFailed("503")
PERMANENT = AudioNotFound("gs://b/o")
UNAVAILABLE = QueueServiceError("pull", "jobs", "503")


async def test_a_job_that_returns_is_acked() -> None:
    async with room() as r:
        await r.deliver("m1")

        await r.finish("m1")

        assert r.subscription.acks == ["ack-m1"]
        assert r.subscription.nacks == []
        assert r.consumer.snapshot.unsettled == 0


async def test_it_pulls_only_as_many_as_there_are_free_slots() -> None:
    async with room(slots=3) as r:
        await r.deliver("m1", "m2")
        await r.deliver("m3")
        assert r.subscription.pulls == [3, 1]

        await r.finish("m1", "m2")
        await r.finish("m3")

        assert r.subscription.pulls == [3, 1, 2]


async def test_a_parked_delivery_lets_another_be_pulled() -> None:
    async with room(slots=1) as r:
        await r.deliver("parked1")
        await r.deliver("m2")
        snapshot = r.consumer.snapshot
        assert (snapshot.jobs, snapshot.parked, snapshot.unsettled) == (1, 1, 2)

        r.handler.unpark("parked1")
        await r.finish("m2")
        await r.finish("parked1")

        assert r.handler.started == ["parked1", "m2", "parked1 again"]
        assert r.subscription.acks == ["ack-m2", "ack-parked1"]


async def test_what_a_pull_brings_after_a_parked_delivery_came_back_is_nacked_not_queued() -> None:
    async with room(slots=1) as r:
        await r.deliver("parked1")
        assert r.subscription.pulls == [1, 1]
        r.handler.unpark("parked1")
        await r.clock.rest()

        await r.deliver("m2")

        assert r.handler.started == ["parked1", "parked1 again"]
        assert r.subscription.nacks == [("ack-m2",)]


@pytest.mark.parametrize("error", [Deferred("not now"), ParkingFull(2)])
async def test_deferred_is_nacked_and_counts_nothing(error: Exception) -> None:
    async with room(fuse_threshold=1) as r:
        await r.deliver("m1")

        await r.fail("m1", error)

        assert r.subscription.nacks == [("ack-m1",)]
        assert (r.handler.recorded, r.handler.given_up, r.self_test.runs) == ([], [], 0)


@pytest.mark.parametrize("error", [TRANSIENT, ValueError("a bug")])
async def test_a_verdict_that_may_change_is_counted_and_nacked(error: Exception) -> None:
    async with room(max_attempts=3) as r:
        r.handler.attempts_before = 1
        await r.deliver("m1")

        await r.fail("m1", error)

        assert r.handler.recorded == ["m1"]
        assert r.subscription.nacks == [("ack-m1",)]
        assert r.subscription.acks == []


async def test_the_last_attempt_is_given_up_and_acked() -> None:
    async with room(max_attempts=3) as r:
        r.handler.attempts_before = 2
        await r.deliver("m1")

        await r.fail("m1", TRANSIENT)

        assert r.handler.given_up == [("m1", CallFailed, 3)]
        assert r.subscription.acks == ["ack-m1"]
        assert r.subscription.nacks == []


async def test_a_permanent_error_is_given_up_at_once_and_acked() -> None:
    async with room() as r:
        await r.deliver("m1")

        await r.fail("m1", PERMANENT)

        assert r.handler.recorded == []
        assert r.handler.given_up == [("m1", AudioNotFound, 1)]
        assert r.subscription.acks == ["ack-m1"]


@pytest.mark.parametrize("broken", ["record_error", "give_up_error"])
async def test_a_verdict_that_cannot_be_written_is_nacked_never_acked(
    broken: str, events: list[dict[str, Any]]
) -> None:
    async with room(max_attempts=1) as r:
        setattr(r.handler, broken, CallFailed("503"))
        await r.deliver("m1")

        await r.fail("m1", TRANSIENT)

        assert r.subscription.nacks == [("ack-m1",)]
        assert r.subscription.acks == []
        assert "delivery.verdict_unrecorded" in [event["event"] for event in events]


async def test_a_failed_ack_leaves_the_worker_at_work() -> None:
    async with room(slots=1) as r:
        r.subscription.ack_error = UNAVAILABLE
        await r.deliver("m1")

        await r.finish("m1")

        assert r.consumer.snapshot.free_slots == 1
        await r.deliver("m2")
        assert r.handler.started == ["m1", "m2"]


async def test_a_failed_nack_leaves_the_worker_at_work() -> None:
    async with room(slots=1) as r:
        r.subscription.nack_error = UNAVAILABLE
        await r.deliver("m1")

        await r.fail("m1", Deferred("not now"))

        assert r.consumer.snapshot.free_slots == 1
        assert not r.run.done()


async def test_failed_pulls_back_off_with_jitter_and_start_afresh_after_a_good_one() -> None:
    async with room() as r:
        pauses = []
        for failures in range(1, 5):
            r.subscription.fail_pull(UNAVAILABLE)
            await r.clock.rest()
            assert r.consumer.snapshot.pull_failures_in_a_row == failures
            pauses.append(await r.seconds_to_next_pull())

        await r.deliver("m1")

        assert r.consumer.snapshot.pull_failures_in_a_row == 0
        assert all(0.5 <= pause / nominal <= 1.05 for pause, nominal in zip(pauses, (0.5, 1, 2, 4), strict=True))


async def test_an_empty_answer_is_followed_by_another_pull_though_not_at_once() -> None:
    async with room() as r:
        await r.deliver()
        assert len(r.subscription.pulls) == 1

        await r.clock.advance(0.2)

        assert len(r.subscription.pulls) == 2


async def test_a_deleted_subscription_stops_the_worker_and_its_jobs() -> None:
    async with room() as r:
        await r.deliver("m1")

        r.subscription.fail_pull(SubscriptionNotFound("jobs"))
        await r.clock.rest()

        with pytest.raises(SubscriptionNotFound):
            await r.run
        assert r.handler.cancelled == ["m1"]
        assert r.subscription.nacks == [("ack-m1",)]


async def test_a_fatal_error_of_a_handler_stops_the_worker_and_the_job_is_not_judged() -> None:
    async with room() as r:
        await r.deliver("m1")

        await r.fail("m1", SubscriptionNotFound("jobs"))
        await r.clock.advance(6)

        with pytest.raises(SubscriptionNotFound):
            await r.run
        assert (r.handler.recorded, r.handler.given_up) == ([], [])
        assert r.subscription.nacks == [("ack-m1",)]


async def test_an_unexpected_error_in_a_background_task_stops_the_worker() -> None:
    async with room() as r:
        await r.deliver("m1")

        r.subscription.fail_pull(ValueError("a bug in an adapter"))
        await r.clock.rest()

        with pytest.raises(ValueError, match="a bug in an adapter"):
            await r.run
        assert r.subscription.nacks == [("ack-m1",)]


async def test_a_message_with_an_ordering_key_is_like_any_other() -> None:
    async with room() as r:
        first, second = (make_delivery(name, ordering_key="video-1") for name in ("m1", "m2"))
        r.subscription.deliver(first, second)
        await r.clock.rest()

        await r.fail("m1", Deferred("not now"))
        await r.finish("m2")

        assert r.subscription.nacks == [("ack-m1",)]
        assert r.subscription.acks == ["ack-m2"]


async def test_every_delivery_is_logged_with_age_outcome_and_duration(events: list[dict[str, Any]]) -> None:
    async with room() as r:
        await r.deliver("m1")
        await r.clock.advance(2)

        await r.finish("m1")

        settled = next(event for event in events if event["event"] == "delivery.settled")
        assert settled == {"event": "delivery.settled", "outcome": "ack", "seconds": 2.0, "log_level": "info"}
        received = next(event for event in events if event["event"] == "delivery.received")
        assert received["age_seconds"] == 60.0
