"""The queue ports on each backend: twin, adapter on the embedded server, adapter on the official emulator."""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
from google.pubsub_v1 import SubscriberAsyncClient
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcAsyncIOTransport

from tests.support.clock import FakeClock
from tests.support.queues.pubsub_server import let_it_pass
from tests.support.wait import eventually
from worker.adapters.memory.pubsub import MemoryPubSub
from worker.adapters.pubsub.pubsub import CallTimeouts, PubSub, open_pubsub
from worker.embedded.pubsub import EmbeddedPubSub
from worker.embedded.pubsub.provision import SubscriptionPlan, provision
from worker.ports import Delivery, Subscription, Topic

JOBS, JOBS_TOPIC, DEAD_LETTERS = "jobs-worker", "jobs", "dead-letters"


@dataclass(frozen=True, kw_only=True)
class Backend:
    """A project with one queue to be made in it."""

    create: Callable[[SubscriptionPlan], Awaitable[None]]
    delete: Callable[[str], Awaitable[None]]
    subscription: Callable[[str], Subscription]
    topic: Callable[[str], Topic]
    pass_time: Callable[[float], Awaitable[None]]

    async def queue(self, *, exactly_once: bool = False, dead_letters: bool = False) -> tuple[Topic, Subscription]:
        plan = SubscriptionPlan(
            name=JOBS,
            topic=JOBS_TOPIC,
            ack_deadline_seconds=60,
            exactly_once=exactly_once,
            dead_letter_topic=DEAD_LETTERS if dead_letters else None,
            max_delivery_attempts=5,
        )
        await self.create(plan)
        return self.topic(JOBS_TOPIC), self.subscription(JOBS)


async def receive(subscription: Subscription, count: int = 1, *, stir: Subscription | None = None) -> list[Delivery]:
    """Pull until that many have come. `stir` is asked as well, with nothing to give: see `Server.receive`."""
    received: list[Delivery] = []

    async def enough() -> bool:
        if stir is not None:
            assert list(await stir.pull(1)) == []
        received.extend(await subscription.pull(count))
        return len(received) >= count

    await eventually(enough)
    return received


@asynccontextmanager
async def twin() -> AsyncIterator[Backend]:
    clock = FakeClock()
    broker = MemoryPubSub(clock, pull_seconds=1)

    async def create(plan: SubscriptionPlan) -> None:
        broker.create_topic(plan.topic)
        if plan.dead_letter_topic:
            broker.create_topic(plan.dead_letter_topic)
            broker.create_subscription(plan.dead_letter_topic, topic=plan.dead_letter_topic)
        broker.create_subscription(
            plan.name,
            topic=plan.topic,
            ack_deadline_seconds=plan.ack_deadline_seconds,
            exactly_once=plan.exactly_once,
            dead_letter_topic=plan.dead_letter_topic,
            max_delivery_attempts=plan.max_delivery_attempts if plan.dead_letter_topic else None,
        )

    async def delete(name: str) -> None:
        broker.delete_subscription(name)

    yield Backend(
        create=create,
        delete=delete,
        subscription=broker.subscription,
        topic=broker.topic,
        pass_time=clock.advance,
    )


@asynccontextmanager
async def adapter_on_embedded() -> AsyncIterator[Backend]:
    clock = FakeClock()
    async with EmbeddedPubSub(clock=clock) as server, adapter_on(server.target, clock.advance, 0.3) as backend:
        yield backend


@asynccontextmanager
async def adapter_on(
    target: str, pass_time: Callable[[float], Awaitable[None]] = let_it_pass, pull_seconds: float = 1.0
) -> AsyncIterator[Backend]:
    project = f"test-{uuid.uuid4().hex[:12]}"

    async def create(plan: SubscriptionPlan) -> None:
        await provision(target, project, plan)

    async def delete(name: str) -> None:
        async with grpc.aio.insecure_channel(target) as channel:
            client = SubscriberAsyncClient(transport=SubscriberGrpcAsyncIOTransport(channel=channel))
            await client.delete_subscription(subscription=f"projects/{project}/subscriptions/{name}")

    opened: PubSub
    async with open_pubsub(project, emulator_host=target, timeouts=CallTimeouts(pull=pull_seconds)) as opened:
        yield Backend(
            create=create,
            delete=delete,
            subscription=opened.subscription,
            topic=opened.topic,
            pass_time=pass_time,
        )
