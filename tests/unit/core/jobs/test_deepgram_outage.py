"""Deepgram away for minutes, on a clock by hand: the real consumer and recipe, the real circuit breaker, the twins."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from schemas.events import CompletedEvent, CostEvent, DeepgramCost, FailedEvent
from tests.support.clock import FakeClock
from tests.support.jobs.harness import JobsRoom, speech
from tests.support.queues.consumer_harness import fitness_of
from tests.support.services.deepgram import GuardedCloud
from worker.adapters.memory.pubsub import MemoryPubSub
from worker.core.costs.budget import NoLimit, PaidRecogniser
from worker.core.delivery.consumer import Consumer
from worker.core.jobs.engine_trust import Readiness
from worker.core.jobs.routing import RoutingPolicy
from worker.errors import DeepgramDown, DeepgramRejected, DeepgramUnusable, PaidServiceError, TranscriptionTimeout
from worker.ports import Pcm

OUTAGE_SECONDS = 300
BY_DEEPGRAM = {"force_method": "deepgram"}
STEP_SECONDS = 1.0
MOST_DELIVERIES = 100
LONGEST_BACKOFF_SECONDS = 10.0


class World:
    """One worker of four slots and four parking places, and a Deepgram that fails as `fault` says."""

    def __init__(self, folder: Path, **rules: Any) -> None:
        self.clock = FakeClock()
        self.fault: Callable[[str], PaidServiceError | None] = lambda _job_id: None
        self.fault_seconds = 1.0
        self.requests = Counter[str]()
        self.cloud = GuardedCloud(self.clock, self._serve)
        self.deepgram = PaidRecogniser(recogniser=self.cloud, usd_per_minute=0.0045, budget=NoLimit())
        self.room = JobsRoom(
            folder, deepgram=self.deepgram, clock=self.clock, claim_ttl_seconds=30.0, chunks_in_flight=1, **rules
        )
        self.broker = MemoryPubSub(self.clock)
        for topic in ("jobs", "forwarded"):
            self.broker.create_topic(topic)
        self.broker.create_subscription("forwarded", topic="forwarded")
        self.broker.create_subscription(
            "jobs",
            topic="jobs",
            nack_delay_seconds=LONGEST_BACKOFF_SECONDS,
            dead_letter_topic="forwarded",
            max_delivery_attempts=MOST_DELIVERIES,
        )

    async def _serve(self, _samples: Pcm, job_id: str) -> None:
        self.requests[job_id] += 1
        if error := self.fault(job_id):
            await self.clock.sleep(self.fault_seconds)
            raise error

    @asynccontextmanager
    async def working(self) -> AsyncIterator[Consumer]:
        """A worker at work; leaving stops it at once."""
        await self.room.upload(speech(30))
        consumer = Consumer(
            self.broker.subscription("jobs"),
            self.room.jobs,
            slots=4,
            max_parked=4,
            ack_deadline_seconds=60,
            max_attempts=5,
            fitness=fitness_of(lambda: self.clock.sleep(0), self.clock),
            fuse_threshold=10,
            clock=self.clock,
            rng=random.Random(1),
            why_idle=Readiness(self.room.health, self.deepgram, may_pay=True).why_not,
        )
        run = asyncio.create_task(consumer.run())
        yield consumer
        consumer.stop("the test is over")
        consumer.stop("at once")
        await self.clock.advance(6)
        await run

    def submit(self, *job_ids: str, **fields: Any) -> None:
        for job_id in job_ids:
            job = {"job_id": job_id, "video_id": f"vod-{job_id}", "audio_uri": "gs://audio/a.pcm", **fields}
            self.broker.publish("jobs", json.dumps(job).encode(), {}, ordering_key="")

    async def pass_until(self, condition: Callable[[], bool], most_seconds: float) -> None:
        """Let time pass until that holds; fail when it takes longer."""
        end = self.clock.monotonic() + most_seconds
        while not condition():
            assert self.clock.monotonic() < end, f"not within {most_seconds:g} s"
            await self.clock.advance(STEP_SECONDS)

    async def pass_seconds(self, seconds: float) -> None:
        end = self.clock.monotonic() + seconds
        await self.pass_until(lambda: self.clock.monotonic() >= end, seconds + 2 * STEP_SECONDS)

    @property
    def completed(self) -> set[str]:
        return {event.job.job_id or "" for event in self.room.events if isinstance(event, CompletedEvent)}

    @property
    def failed(self) -> Mapping[str, FailedEvent]:
        return {event.job.job_id or "": event for event in self.room.events if isinstance(event, FailedEvent)}

    @property
    def most_deliveries(self) -> int:
        return max((held.failures for held in self.broker.queue("jobs").held), default=0)

    @property
    def dead_letters(self) -> int:
        return len(self.room.dead_letters.messages) + len(self.broker.queue("forwarded").held)


@pytest.fixture
def events() -> Iterator[list[dict[str, Any]]]:
    """The log events of the test."""
    with capture_logs() as captured:
        yield captured


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(asyncio, "to_thread", at_once)  # the clock by hand does not wait for threads
    return World(tmp_path)


async def at_once(work: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """`asyncio.to_thread` on the event loop."""
    return work(*arguments, **named)


def unreachable(_job_id: str) -> PaidServiceError:
    return DeepgramDown("the connection failed: ConnectError")


def silent(_job_id: str) -> PaidServiceError:
    error = TranscriptionTimeout("deepgram", 60)
    error.wasted_requests = 1
    return error


def names(count: int, kind: str = "job") -> list[str]:
    return [f"{kind}-{number}" for number in range(count)]


async def test_five_minutes_without_deepgram_cost_no_job_an_attempt(world: World, events: list[dict[str, Any]]) -> None:
    needing, others = names(12), names(6, "other")
    world.fault = unreachable
    async with world.working():
        world.submit(*needing, **BY_DEEPGRAM)
        await world.pass_seconds(OUTAGE_SECONDS / 2)
        world.submit(*others)
        await world.pass_seconds(OUTAGE_SECONDS / 2)
        done_meanwhile, deliveries = world.completed, world.most_deliveries

        world.fault = lambda _job_id: None
        await world.pass_until(lambda: len(world.completed) == len(needing) + len(others), 180)

    assert done_meanwhile == set(others)
    assert deliveries < MOST_DELIVERIES / 2
    assert world.dead_letters == 0
    assert [event for event in events if event["event"] == "delivery.failed"] == []


@pytest.mark.parametrize("gpu_enabled", [True, False])
async def test_a_worker_that_has_nothing_but_deepgram_takes_hardly_a_message_meanwhile(
    world: World, events: list[dict[str, Any]], tmp_path: Path, gpu_enabled: bool
) -> None:
    world = World(tmp_path, routing=RoutingPolicy(gpu_enabled=gpu_enabled))
    world.fault = unreachable
    for _ in range(3):
        world.room.health.record_failure()
    async with world.working() as consumer:
        world.submit(*names(12))
        await world.pass_seconds(30)
        stopped_because = consumer.snapshot.intake_stopped_because
        await world.pass_seconds(OUTAGE_SECONDS)
        deliveries = world.most_deliveries
        stops = [event for event in events if event["event"] == "intake.stopped"]

        world.fault = lambda _job_id: None
        await world.pass_until(lambda: len(world.completed) == 12, 180)

    assert "Parakeet cannot work, and Deepgram is down: the connection failed: ConnectError" in stopped_because
    assert deliveries < 12
    assert len(stops) < 12
    assert world.dead_letters == 0
    assert [event for event in events if event["event"] == "delivery.failed"] == []


async def test_an_outage_that_shows_as_silence_costs_attempts_but_no_job(world: World) -> None:
    world.fault, world.fault_seconds = silent, 60.0
    async with world.working():
        world.submit(*names(6), **BY_DEEPGRAM)
        await world.pass_seconds(OUTAGE_SECONDS)

        world.fault = lambda _job_id: None
        await world.pass_until(lambda: len(world.completed) == 6, 240)

    assert world.dead_letters == 0
    assert sum(world.requests.values()) <= 6 + 15


async def test_a_chunk_that_is_never_answered_is_not_paid_for_without_bound(world: World) -> None:
    world.fault, world.fault_seconds = silent, 60.0
    async with world.working():
        world.submit("poison", **BY_DEEPGRAM)
        await world.pass_until(lambda: bool(world.failed), 3_600)

    (bill,) = (event for event in world.room.events if isinstance(event, CostEvent))
    (paid,) = bill.engines
    assert isinstance(paid, DeepgramCost)
    assert paid.requests == world.requests["poison"] == 3 + 3 + 2


async def test_odd_answers_to_one_job_fail_it_and_leave_the_others_alone(world: World) -> None:
    def odd(job_id: str) -> PaidServiceError | None:
        return DeepgramUnusable("it cannot be read as JSON") if job_id == "odd" else None

    world.fault = odd
    async with world.working():
        world.submit("odd", *names(6), **BY_DEEPGRAM)
        await world.pass_until(lambda: len(world.completed) == 6, 30)
        await world.pass_until(lambda: bool(world.failed), 120)

    assert list(world.failed) == ["odd"]
    assert world.failed["odd"].error.is_retryable
    assert all(world.requests[name] == len(world.cloud.answered) / 6 for name in names(6))


@pytest.mark.parametrize("others", [names(8)])
async def test_a_job_that_deepgram_never_serves_ends_while_it_serves_others(world: World, others: list[str]) -> None:
    world.fault = lambda job_id: DeepgramDown("status 500") if job_id == "poison" else None
    async with world.working():
        world.submit("poison", **BY_DEEPGRAM)
        await world.pass_seconds(60)
        for name in others:
            world.submit(name, **BY_DEEPGRAM)
            await world.pass_seconds(30)
        await world.pass_until(lambda: bool(world.failed), 300)

    assert list(world.failed) == ["poison"]
    assert world.completed == set(others)


async def test_a_poisonous_job_does_not_keep_the_only_engine_from_the_others(world: World) -> None:
    world.fault = lambda job_id: DeepgramDown("status 500") if job_id == "poison" else None
    for _ in range(3):
        world.room.health.record_failure()
    async with world.working():
        world.submit("poison")
        await world.pass_seconds(120)
        world.submit(*names(4))
        await world.pass_until(lambda: len(world.completed) == 4, 180)

    assert world.room.dead_letters.messages == []


async def test_a_rejected_job_is_dead_lettered_at_once_though_deepgram_was_away(world: World) -> None:
    world.fault = unreachable
    async with world.working():
        world.submit("bad", **BY_DEEPGRAM)
        await world.pass_seconds(60)

        world.fault = lambda _job_id: DeepgramRejected(400, "bad audio")
        await world.pass_until(lambda: bool(world.failed), 120)

    assert world.requests["bad"] < 10
