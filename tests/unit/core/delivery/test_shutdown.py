"""Shutdown of the consumer: within 7 s whatever hangs, and with nothing left unsettled that could be nacked."""

import asyncio
from typing import Any

import pytest

from tests.support.queues.consumer_harness import Room, room
from tests.support.queues.scripted_subscription import make_delivery
from worker.errors import AudioNotFound, QueueServiceError


async def seconds_to_end(r: Room) -> float:
    before = r.clock.monotonic()
    while not r.run.done():
        await r.clock.advance(0.25)
        assert r.clock.monotonic() - before < 10
    return r.clock.monotonic() - before


async def test_an_idle_worker_waits_at_most_a_second_for_the_pull_in_flight() -> None:
    async with room() as r:
        await r.stop()

        assert await seconds_to_end(r) == 1
        assert r.subscription.cancelled_pulls == 1
        assert r.subscription.nacks == []


async def test_what_the_last_pull_brings_is_nacked_and_never_started() -> None:
    async with room() as r:
        await r.stop()

        await r.deliver("m1", "m2")

        assert r.run.done()
        assert r.handler.started == []
        assert r.subscription.nacks == [("ack-m1", "ack-m2")]


async def test_a_last_pull_that_fails_is_no_trouble() -> None:
    async with room() as r:
        await r.stop()

        r.subscription.fail_pull(QueueServiceError("pull", "jobs", "503"))
        await r.clock.rest()

        await r.run


async def test_jobs_are_cancelled_at_once_and_nacked_in_one_request_and_nothing_is_pulled() -> None:
    async with room(slots=3) as r:
        await r.deliver("m1", "m2", "parked3")
        pulls = len(r.subscription.pulls)

        await r.stop()

        assert sorted(r.handler.cancelled) == ["m1", "m2", "parked3"]
        assert await seconds_to_end(r) == 1
        assert r.subscription.nacks == [("ack-m1", "ack-m2", "ack-parked3")]
        assert len(r.subscription.pulls) == pulls


async def test_a_worker_that_pulls_nothing_nacks_at_once() -> None:
    async with room(slots=1) as r:
        await r.deliver("m1")

        await r.stop()

        assert r.subscription.nacks == [("ack-m1",)]
        assert r.run.done()


async def test_the_nack_waits_for_a_job_that_saves_its_work() -> None:
    async with room() as r:
        r.handler.cancel_takes_seconds = 3
        await r.deliver("m1")

        await r.stop()
        await r.clock.advance(2.5)
        assert r.subscription.nacks == []
        await r.clock.advance(0.5)

        assert r.subscription.nacks == [("ack-m1",)]
        assert r.run.done()


async def test_a_job_that_ignores_its_cancellation_is_nacked_and_left_behind(events: list[dict[str, Any]]) -> None:
    async with room() as r:
        r.handler.cancel_takes_seconds = 60
        await r.deliver("m1")
        await r.stop()

        assert await seconds_to_end(r) == 4.5
        assert r.subscription.nacks == [("ack-m1",)]
        assert [event["left_behind"] for event in events if event["event"] == "consumer.stopped"] == [1]


async def test_it_ends_below_seven_seconds_when_everything_hangs() -> None:
    async with room(slots=3) as r:
        r.handler.cancel_takes_seconds = 60
        await r.deliver("m1", "m2")
        r.subscription.extend_hangs = r.subscription.nack_hangs = r.subscription.ack_hangs = True
        await r.finish("m2")
        await r.clock.advance(5)

        await r.stop()

        assert await seconds_to_end(r) < 7


async def test_a_second_stop_ends_at_once() -> None:
    async with room() as r:
        r.handler.cancel_takes_seconds = 60
        await r.deliver("m1")
        await r.stop()
        assert not r.run.done()

        await r.stop()

        assert r.run.done()
        assert r.subscription.nacks == [("ack-m1",)]


async def test_an_ack_in_flight_is_neither_cancelled_nor_nacked() -> None:
    async with room() as r:
        r.subscription.ack_hangs = True
        await r.deliver("m1")
        await r.finish("m1")

        await r.stop()

        assert r.subscription.acks == ["ack-m1"]
        assert await seconds_to_end(r) == 4.5
        assert r.subscription.nacks == []


async def test_an_error_of_a_job_that_was_stopped_is_no_verdict() -> None:
    async with room(fuse_threshold=1) as r:
        r.handler.error_on_cancel = AudioNotFound("gs://b/o")
        await r.deliver("m1")

        await r.stop()
        await r.clock.advance(1)

        assert (r.handler.recorded, r.handler.given_up, r.self_test.runs) == ([], [], 0)
        assert r.subscription.nacks == [("ack-m1",)]


async def test_a_delivery_that_has_not_begun_is_nacked_too() -> None:
    async with room() as r:
        r.consumer.stop("SIGTERM")
        r.consumer._accept([make_delivery("m1")])

        await r.clock.advance(1)

        assert r.handler.started == []
        assert r.subscription.nacks == [("ack-m1",)]


async def test_a_failing_nack_does_not_fail_the_shutdown() -> None:
    async with room() as r:
        r.subscription.nack_error = QueueServiceError("nack", "jobs", "503")
        await r.deliver("m1")

        await r.stop()
        await r.clock.advance(2)

        await r.run


async def test_cancelling_the_run_winds_down_likewise() -> None:
    async with room() as r:
        await r.deliver("m1")

        r.run.cancel()
        await r.clock.advance(2)

        with pytest.raises(asyncio.CancelledError):
            await r.run
        assert r.subscription.nacks == [("ack-m1",)]
        assert r.consumer.snapshot.stopping


async def test_no_task_of_its_own_outlives_a_run() -> None:
    async with room() as r:
        await r.deliver("m1")
        await r.stop()
        await r.clock.advance(6)

        assert asyncio.all_tasks() == {asyncio.current_task()}
