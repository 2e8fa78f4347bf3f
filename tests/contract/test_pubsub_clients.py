"""The embedded server behind the official high-level clients, and under load."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
import structlog
from google.cloud import pubsub_v1
from google.cloud.pubsub_v1.subscriber.message import Message

from tests.support.queues.pubsub_server import Server, connected, let_it_pass
from tests.support.wait import eventually, wait_until
from worker.embedded.own_thread import in_thread
from worker.embedded.pubsub import EmbeddedPubSub

PUBLISHERS, MESSAGES_EACH, PULLERS = 8, 100, 8


@pytest.fixture
def threaded(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedPubSub]:
    with in_thread(EmbeddedPubSub(pull_hold_seconds=0.2)) as server:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", server.target)
        yield server


@pytest.mark.usefixtures("threaded")
@pytest.mark.parametrize("exactly_once", [False, True])
def test_the_official_client_subscribes_and_acks(exactly_once: bool) -> None:
    with pubsub_v1.PublisherClient() as publisher, pubsub_v1.SubscriberClient() as subscriber:
        topic, subscription = publisher.topic_path("p", "topic"), subscriber.subscription_path("p", "subscription")
        publisher.create_topic(name=topic)
        settings = {"name": subscription, "topic": topic, "enable_exactly_once_delivery": exactly_once}
        subscriber.create_subscription(request=settings)
        seen: Counter[bytes] = Counter()

        def settle(message: Message) -> None:
            message.ack_with_response().result(timeout=10)
            seen[message.data] += 1

        pulling = subscriber.subscribe(subscription, callback=settle)
        for number in range(100):
            publisher.publish(topic, b"%d" % number).result(timeout=10)
        wait_until(lambda: len(seen) == 100)
        pulling.cancel()
        pulling.result(timeout=10)

    assert set(seen.values()) == {1}


@pytest.mark.usefixtures("threaded")
def test_many_threads_publish_and_pull_and_each_message_is_settled_once() -> None:
    settled: Counter[bytes] = Counter()

    def pull(subscriber: pubsub_v1.SubscriberClient) -> None:
        while len(settled) < PUBLISHERS * MESSAGES_EACH:
            response = subscriber.pull(subscription=subscription, max_messages=20, timeout=10)
            for number, received in enumerate(response.received_messages):
                if number % 5 == 4:
                    subscriber.modify_ack_deadline(
                        subscription=subscription, ack_ids=[received.ack_id], ack_deadline_seconds=0
                    )
                    continue
                subscriber.acknowledge(subscription=subscription, ack_ids=[received.ack_id])
                settled[received.message.data] += 1

    def publish(worker: int) -> None:
        futures = [publisher.publish(topic, b"%d-%d" % (worker, number)) for number in range(MESSAGES_EACH)]
        for future in futures:
            future.result(timeout=30)

    with pubsub_v1.PublisherClient() as publisher, pubsub_v1.SubscriberClient() as subscriber:
        topic, subscription = publisher.topic_path("p", "topic"), subscriber.subscription_path("p", "subscription")
        publisher.create_topic(name=topic)
        subscriber.create_subscription(name=subscription, topic=topic)
        with ThreadPoolExecutor(PUBLISHERS + PULLERS) as threads:
            work = [threads.submit(publish, worker) for worker in range(PUBLISHERS)]
            work += [threads.submit(pull, subscriber) for _ in range(PULLERS)]
            for each in work:
                each.result(timeout=60)

    assert len(settled) == PUBLISHERS * MESSAGES_EACH
    assert set(settled.values()) == {1}


async def test_clients_that_vanish_in_the_middle_of_calls_lose_nothing(embedded_server: Server) -> None:
    topic, subscription = await embedded_server.queue()
    for _ in range(20):
        async with connected(embedded_server.target, let_it_pass) as passing:
            pulls = [asyncio.create_task(passing.pull(subscription, limit=1)) for _ in range(5)]
            await embedded_server.publish(topic, b"x")
            for pull in pulls:
                pull.cancel()
            await asyncio.gather(*pulls, return_exceptions=True)

    async def all_come_back() -> bool:  # a pull may be served after its client has gone, and its lease begins only then
        await embedded_server.pass_time(10)
        return len(await embedded_server.pull_now(subscription)) == 20

    await eventually(all_come_back)


async def test_two_servers_cannot_share_a_port() -> None:
    async with EmbeddedPubSub() as first:
        with pytest.raises(OSError, match=str(first.port)):
            async with EmbeddedPubSub(port=first.port):
                pass


def test_a_server_in_a_thread_reports_a_taken_port(threaded: EmbeddedPubSub) -> None:
    with pytest.raises(OSError, match=str(threaded.port)), in_thread(EmbeddedPubSub(port=threaded.port)):
        pass


async def test_it_says_that_it_is_for_development_when_it_starts() -> None:
    with structlog.testing.capture_logs() as events:
        async with EmbeddedPubSub() as server:
            pass

    assert events == [
        {
            "event": "embedded_pubsub.started",
            "log_level": "warning",
            "target": server.target,
            "purpose": "development and tests only, in memory",
        }
    ]


async def test_what_it_does_not_do_is_unimplemented() -> None:
    async with EmbeddedPubSub() as server, grpc.aio.insecure_channel(server.target) as channel:
        call = channel.unary_unary("/google.pubsub.v1.SchemaService/GetSchema")

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"")

    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
