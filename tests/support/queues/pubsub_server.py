"""A Pub/Sub server under test, embedded or official, with its clients. A pytest plugin: `server`, `embedded_server`."""

import itertools
import uuid
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.pubsub_v1 import PublisherAsyncClient, SubscriberAsyncClient, types
from google.pubsub_v1.services.publisher.transports import PublisherGrpcAsyncIOTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcAsyncIOTransport

from tests.support.clock import FakeClock
from tests.support.wait import eventually
from worker.embedded.pubsub import EmbeddedPubSub

ONCE: dict[str, Any] = {"retry": None, "timeout": 10.0}
CHANNEL_OPTIONS = [("grpc.max_receive_message_length", -1)]

EMULATOR = pytest.param(
    "official_emulator", marks=[pytest.mark.emulator, pytest.mark.xdist_group("emulator")], id="emulator"
)


async def let_it_pass(_: float) -> None:
    """Real time passes by itself while `Server.receive` waits."""


@dataclass(kw_only=True)
class Server:
    """Short hands for what the tests do; every name is made in a project of the test's own."""

    target: str
    publisher: PublisherAsyncClient
    subscriber: SubscriberAsyncClient
    pass_time: Callable[[float], Awaitable[None]]
    project: str = field(default_factory=lambda: f"test-{uuid.uuid4().hex[:12]}")
    numbers: Any = field(default_factory=itertools.count)

    def name(self, collection: str, short: str = "") -> str:
        return f"projects/{self.project}/{collection}/{short or f'n{next(self.numbers)}'.ljust(4, 'x')}"

    async def topic(self) -> str:
        topic = await self.publisher.create_topic(types.Topic(name=self.name("topics")), **ONCE)
        return str(topic.name)

    async def subscription(self, topic: str, **settings: Any) -> str:
        request = types.Subscription(name=self.name("subscriptions"), topic=topic, **settings)
        return str((await self.subscriber.create_subscription(request, **ONCE)).name)

    async def queue(self, **settings: Any) -> tuple[str, str]:
        topic = await self.topic()
        return topic, await self.subscription(topic, **settings)

    async def publish(self, topic: str, *bodies: bytes, key: str = "", **attributes: str) -> list[str]:
        messages = [types.PubsubMessage(data=body, attributes=attributes, ordering_key=key) for body in bodies]
        return list(
            (await self.publisher.publish(types.PublishRequest(topic=topic, messages=messages), **ONCE)).message_ids
        )

    async def pull(self, subscription: str, limit: int = 100, seconds: float = 10.0) -> list[types.ReceivedMessage]:
        request = types.PullRequest(subscription=subscription, max_messages=limit)
        return list((await self.subscriber.pull(request, retry=None, timeout=seconds)).received_messages)

    async def pull_now(self, subscription: str, limit: int = 100) -> list[types.ReceivedMessage]:
        request = types.PullRequest(subscription=subscription, max_messages=limit, return_immediately=True)
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            return list((await self.subscriber.pull(request, **ONCE)).received_messages)

    async def receive(
        self, subscription: str, count: int = 1, *, seconds: float = 15.0, stir: str = ""
    ) -> list[types.ReceivedMessage]:
        """Pull until that many have come; fails when they do not.

        `stir` is pulled from as well: the emulator forwards a dead letter when its source is asked for messages.
        """
        received: list[types.ReceivedMessage] = []

        async def enough() -> bool:
            if stir:
                assert await self.pull_now(stir) == []
            received.extend(await self.pull_now(subscription))
            return len(received) >= count

        await eventually(enough, seconds)
        return received

    async def ack(self, subscription: str, *ack_ids: str) -> None:
        await self.subscriber.acknowledge(types.AcknowledgeRequest(subscription=subscription, ack_ids=ack_ids), **ONCE)

    async def lease(self, subscription: str, seconds: int, *ack_ids: str) -> None:
        request = types.ModifyAckDeadlineRequest(
            subscription=subscription, ack_ids=ack_ids, ack_deadline_seconds=seconds
        )
        await self.subscriber.modify_ack_deadline(request, **ONCE)

    async def nack(self, subscription: str, *ack_ids: str) -> None:
        await self.lease(subscription, 0, *ack_ids)


@asynccontextmanager
async def connected(target: str, pass_time: Callable[[float], Awaitable[None]]) -> AsyncIterator[Server]:
    async with grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS) as channel:
        yield Server(
            target=target,
            publisher=PublisherAsyncClient(transport=PublisherGrpcAsyncIOTransport(channel=channel)),
            subscriber=SubscriberAsyncClient(transport=SubscriberGrpcAsyncIOTransport(channel=channel)),
            pass_time=pass_time,
        )


@asynccontextmanager
async def embedded() -> AsyncIterator[Server]:
    clock = FakeClock()
    async with EmbeddedPubSub(clock=clock) as server, connected(server.target, clock.advance) as connection:
        yield connection


@pytest.fixture
async def embedded_server() -> AsyncIterator[Server]:
    """Run the embedded server with a clock that advances only by `pass_time`."""
    async with embedded() as connection:
        yield connection


@pytest.fixture(params=["embedded", EMULATOR])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    """Each server in turn."""
    if request.param == "embedded":
        connecting = embedded()
    else:
        connecting = connected(request.getfixturevalue(request.param), let_it_pass)
    async with connecting as connection:
        yield connection


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "emulator_fault(reason): the official emulator fails here, the service does not")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        fault = item.get_closest_marker("emulator_fault")
        if fault and item.get_closest_marker("emulator"):
            # not strict, the default: on a slow machine the emulator's timing hides a fault now and then
            item.add_marker(pytest.mark.xfail(reason=fault.args[0]))
