"""Every delivery has exactly one outcome, and a log line that names it: whatever is raised, at whatever task depth."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.support.clock import FakeClock
from tests.support.queues.consumer_harness import fitness_of
from tests.support.queues.scripted_subscription import ScriptedSubscription, make_delivery
from worker.core.delivery.consumer import Consumer
from worker.core.tasks import together
from worker.errors import (
    AudioNotFound,
    CallFailed,
    ClaimLost,
    MachineFault,
    ObjectForbidden,
    ResourceDown,
    StorageServiceError,
    SubscriptionNotFound,
    WorkerError,
)
from worker.ports import Delivery, JobSlot

ERRORS: dict[str, Callable[[], BaseException | None]] = {
    "none": lambda: None,
    "job fault": lambda: AudioNotFound("gs://b/o"),
    "retryable": lambda: CallFailed("503"),
    "worker fault": lambda: MachineFault("TEMP_DIR", "full"),
    "service down": lambda: ResourceDown("gs://b", "503"),
    "deferred": lambda: ClaimLost("job-1"),
    "fatal": lambda: SubscriptionNotFound("jobs"),
    "refused call": lambda: ObjectForbidden("write", "gs://b/o"),
    "failed call": lambda: StorageServiceError("write", "gs://b/o", "503"),
    "disk": lambda: OSError(28, "No space left on device"),
    "memory": MemoryError,
    "defect": lambda: KeyError("a bug"),
    "cancelled from within": asyncio.CancelledError,
}
EXPECTED = {
    "none": "ack",
    "job fault": "dead_letter",
    "retryable": "retry",
    "worker fault": "deferred",
    "service down": "deferred",
    "deferred": "deferred",
    "fatal": "deferred",
    "refused call": "retry",
    "failed call": "retry",
    "disk": "deferred",
    "memory": "deferred",
    "defect": "retry",
    "cancelled from within": "retry",
}
"""The outcome where nothing else happens; a bucket that is none of the worker's is a matter of the call."""


async def direct(fail: Callable[[], Awaitable[None]]) -> None:
    await fail()


async def in_a_child(fail: Callable[[], Awaitable[None]]) -> None:
    async with together() as group:
        group.create_task(fail())  # the parent waits at the end of the group


async def beside_a_child(fail: Callable[[], Awaitable[None]]) -> None:
    async with together() as group:
        group.create_task(asyncio.sleep(0))
        await fail()


async def after_a_failed_child(fail: Callable[[], Awaitable[None]]) -> None:
    async def broken() -> None:
        raise ValueError("caught")

    try:
        async with together() as group:
            group.create_task(broken())
    except ValueError:
        await fail()  # Python 3.11 and 3.12 count the task as being cancelled from here on


async def in_a_grandchild(fail: Callable[[], Awaitable[None]]) -> None:
    async def child() -> None:
        await in_a_child(fail)
        sibling.cancel()

    async with together() as group:
        sibling = group.create_task(asyncio.Event().wait())
        group.create_task(child())


async def in_an_executor(fail: Callable[[], Awaitable[None]]) -> None:
    await asyncio.to_thread(asyncio.run, fail())


DEPTHS = {
    depth.__name__: depth
    for depth in (direct, in_a_child, beside_a_child, after_a_failed_child, in_a_grandchild, in_an_executor)
}


@dataclass
class Attempt:
    """Waits for its cue, then raises at the depth that the test says."""

    error: BaseException | None
    depth: Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]
    cue: asyncio.Event = field(default_factory=asyncio.Event)
    recorded: int = 0
    crashes: int = 0
    given_up: int = 0

    def attempt(self, _delivery: Delivery) -> "Attempt":
        return self

    async def handle(self, _slot: JobSlot) -> None:
        await self.cue.wait()

        async def fail() -> None:
            if self.error is not None:
                raise self.error

        await self.depth(fail)

    async def record_failure(self, _error: Exception) -> int:
        self.recorded += 1
        return self.recorded

    async def record_crash(self, _error: WorkerError) -> None:
        self.crashes += 1

    async def give_up(self, _error: Exception, _attempts: int) -> None:
        self.given_up += 1


async def deliver_one(error: str, depth: str, event: str) -> tuple[Attempt, ScriptedSubscription, list[Any]]:
    clock, subscription = FakeClock(), ScriptedSubscription()
    attempt = Attempt(ERRORS[error](), DEPTHS[depth])

    async def healthy() -> None:
        """The self-test of a worker that is fit."""

    consumer = Consumer(
        subscription,
        attempt,
        slots=1,
        max_parked=1,
        ack_deadline_seconds=10,
        max_attempts=3,
        fitness=fitness_of(healthy, clock),
        fuse_threshold=3,
        clock=clock,
        rng=random.Random(1),
    )
    with capture_logs() as log:
        run = asyncio.create_task(consumer.run())
        await clock.rest()
        subscription.deliver(make_delivery("m1"))
        await clock.rest()
        if event == "lease lost":
            consumer._leases._lose("ack-m1", "expired")
        if event == "stopped":
            consumer.stop("SIGTERM")
        attempt.cue.set()
        for _ in range(200):
            await clock.advance(0.1)
            if any(one["event"] == "delivery.settled" for one in log) or run.done():
                break
            await asyncio.sleep(0.002)  # an executor's thread is at work  # noqa: RUF100
        consumer.stop("end")
        consumer.stop("end")
        await clock.advance(10)
        assert await asyncio.gather(run, return_exceptions=True)
    return attempt, subscription, log


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("error", ERRORS)
async def test_the_depth_at_which_an_error_is_raised_changes_nothing(error: str, depth: str) -> None:
    if error == "cancelled from within" and depth in {"in_a_child", "in_a_grandchild"}:
        expected = "ack"  # a task group takes a cancelled child for one that has ended
    else:
        expected = EXPECTED[error]

    attempt, subscription, log = await deliver_one(error, depth, "nothing")

    settled = [one["outcome"] for one in log if one["event"] == "delivery.settled"]
    if error != "fatal":  # a worker that dies hands back in its last act
        assert settled == [expected]
    assert (attempt.recorded, attempt.given_up) == (expected == "retry", expected == "dead_letter")
    assert len(subscription.acks) == (expected in {"ack", "dead_letter"})
    assert [ack_id for nacked in subscription.nacks for ack_id in nacked] == ["ack-m1"] * (
        expected in {"retry", "deferred"}
    )


@settings(max_examples=150)
@given(
    error=st.sampled_from(sorted(ERRORS)),
    depth=st.sampled_from(sorted(set(DEPTHS) - {"in_an_executor"})),
    event=st.sampled_from(["nothing", "lease lost", "stopped"]),
)
def test_a_delivery_has_exactly_one_outcome_and_a_log_line(error: str, depth: str, event: str) -> None:
    attempt, subscription, log = asyncio.run(deliver_one(error, depth, event))

    settled = [one["outcome"] for one in log if one["event"] == "delivery.settled"]
    nacks = [ack_id for nacked in subscription.nacks for ack_id in nacked]
    (outcome,) = settled
    assert outcome in {"ack", "dead_letter", "retry", "deferred", "lost", "stopped"}
    assert len(subscription.acks) == (outcome in {"ack", "dead_letter"})
    assert len(nacks) == (outcome in {"retry", "deferred", "stopped"})
    assert attempt.recorded == (outcome == "retry")
    assert attempt.given_up == (outcome == "dead_letter")
    if event == "lease lost":
        assert outcome in {"lost", "ack"}
