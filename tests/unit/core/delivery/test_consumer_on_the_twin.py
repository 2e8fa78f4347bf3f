"""The consumer on the in-memory Pub/Sub, which expires leases and delivers again as the real one does."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.clock import FakeClock
from tests.support.queues.consumer_harness import fitness_of
from worker.adapters.memory.pubsub import MemoryPubSub
from worker.core.delivery.consumer import Consumer
from worker.errors import AudioNotFound, Deferred, StorageServiceError
from worker.ports import Delivery, JobSlot

OUTCOMES: Mapping[str, Exception | None] = {
    "done": None,
    "deferred": Deferred("not now"),
    "transient": StorageServiceError("read", "gs://b/o", "503"),
    "permanent": AudioNotFound("gs://b/o"),
}


class TimedHandler:
    """Each job lasts `seconds` and ends as its message's next outcome says, at last with success."""

    def __init__(self, clock: FakeClock, outcomes: Mapping[str, list[str]], seconds: float) -> None:
        self.clock, self.seconds = clock, seconds
        self.outcomes = {name: list(each) for name, each in outcomes.items()}
        self.starts, self.done = Counter[str](), Counter[str]()
        self.recorded, self.given_up = Counter[str](), Counter[str]()
        self.most_at_once = self._at_once = 0

    def attempt(self, delivery: Delivery) -> "TimedAttempt":
        return TimedAttempt(self, delivery.data.decode())

    @contextmanager
    def counted(self, name: str) -> Iterator[None]:
        self.starts[name] += 1
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            yield
        finally:
            self._at_once -= 1


class TimedAttempt:
    def __init__(self, handler: TimedHandler, name: str) -> None:
        self._handler, self._name = handler, name

    async def handle(self, slot: JobSlot) -> None:
        with self._handler.counted(self._name):
            async with slot.parked():
                await self._handler.clock.sleep(0)
            await self._handler.clock.sleep(self._handler.seconds)
        outcomes = self._handler.outcomes[self._name]
        if (error := OUTCOMES[outcomes.pop(0) if outcomes else "done"]) is not None:
            raise error
        self._handler.done[self._name] += 1

    async def record_failure(self, error: Exception) -> int:  # noqa: ARG002
        self._handler.recorded[self._name] += 1
        return self._handler.recorded[self._name]

    async def give_up(self, error: Exception, attempts: int) -> None:  # noqa: ARG002
        self._handler.given_up[self._name] += 1


class World:
    """A broker, a handler, and as many consumers as a test starts."""

    def __init__(
        self, outcomes: Mapping[str, list[str]], *, job_seconds: float = 1, max_attempts: int = 3, **queue: bool
    ) -> None:
        self.clock = FakeClock()
        self.broker = MemoryPubSub(self.clock)
        self.broker.create_topic("jobs")
        self.broker.create_subscription("jobs-worker", topic="jobs", ack_deadline_seconds=10, **queue)
        for name in outcomes:
            self.broker.publish("jobs", name.encode(), {}, ordering_key="key")
        self.handler = TimedHandler(self.clock, outcomes, job_seconds)
        self._max_attempts = max_attempts

    def start_consumer(self, slots: int = 2) -> tuple[Consumer, asyncio.Task[None]]:
        consumer = Consumer(
            self.broker.subscription("jobs-worker"),
            self.handler,
            slots=slots,
            max_parked=slots,
            ack_deadline_seconds=10,
            max_attempts=self._max_attempts,
            fitness=fitness_of(self._pass, self.clock),
            fuse_threshold=4,
            clock=self.clock,
            rng=random.Random(1),
        )
        return consumer, asyncio.create_task(consumer.run())

    @property
    def unsettled(self) -> int:
        return len(self.broker.queue("jobs-worker").held)

    async def _pass(self) -> None:
        await self.clock.sleep(1)


async def stop(world: World, consumer: Consumer, run: asyncio.Task[None]) -> None:
    consumer.stop("SIGTERM")
    await world.clock.advance(6)
    await run


@pytest.mark.parametrize("exactly_once", [False, True])
async def test_a_job_of_many_ack_deadlines_is_delivered_once(exactly_once: bool) -> None:
    world = World({"long": []}, job_seconds=305, exactly_once=exactly_once)
    consumer, run = world.start_consumer()

    await world.clock.advance(400)

    assert (world.handler.starts["long"], world.handler.done["long"], world.unsettled) == (1, 1, 0)
    await stop(world, consumer, run)


async def test_a_stopped_job_starts_on_a_waiting_worker_within_a_second() -> None:
    world = World({"m1": []}, job_seconds=30)
    first = world.start_consumer()
    await world.clock.advance(5)
    second = world.start_consumer()
    await world.clock.advance(1)

    first[0].stop("SIGTERM")
    await world.clock.advance(1)

    assert world.handler.starts["m1"] == 2
    await world.clock.advance(31)
    assert (world.handler.done["m1"], world.unsettled) == (1, 0)
    await stop(world, *second)


async def test_a_stopping_worker_does_not_pull_its_own_job_back() -> None:
    world = World({"m1": []}, job_seconds=30)
    consumer, run = world.start_consumer(slots=2)
    await world.clock.advance(5)

    await stop(world, consumer, run)

    (held,) = world.broker.queue("jobs-worker").held
    assert (world.handler.starts["m1"], held.failures) == (1, 1)


async def test_several_workers_share_the_load_within_their_slots() -> None:
    world = World({f"m{number}": [] for number in range(20)}, job_seconds=1)
    workers = [world.start_consumer(slots=2) for _ in range(3)]

    await world.clock.advance(4)

    assert world.handler.most_at_once == 6
    assert (sum(world.handler.done.values()), world.unsettled) == (20, 0)
    for worker in workers:
        await stop(world, *worker)


@settings(max_examples=40)
@given(
    outcomes=st.lists(st.lists(st.sampled_from(sorted(OUTCOMES)), max_size=4), max_size=8),
    lives=st.lists(st.floats(0.1, 9), max_size=4),
    exactly_once=st.booleans(),
)
def test_every_message_is_settled_whatever_happens_to_jobs_and_workers(
    outcomes: list[list[str]], lives: list[float], exactly_once: bool
) -> None:
    asyncio.run(play(outcomes, lives, exactly_once))


async def play(outcomes: list[list[str]], lives: list[float], exactly_once: bool) -> None:
    scripts = {f"m{number}": script for number, script in enumerate(outcomes)}
    world = World(scripts, exactly_once=exactly_once)
    for seconds in lives:
        consumer, run = world.start_consumer()
        await world.clock.advance(seconds)
        await stop(world, consumer, run)

    consumer, run = world.start_consumer()
    await world.clock.advance(300)

    assert world.unsettled == 0
    for name, script in scripts.items():
        assert (world.handler.given_up[name], world.handler.done[name]) == expected_end(script)
    await stop(world, consumer, run)


def expected_end(script: list[str]) -> tuple[int, int]:
    """Return (given up, done) of a job that is given up at a permanent error or its third transient one."""
    transient = 0
    for outcome in script:
        transient += outcome == "transient"
        if outcome == "permanent" or transient == 3:
            return 1, 0
        if outcome == "done":
            break
    return 0, 1
