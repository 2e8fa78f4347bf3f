"""`worker.ports.Subscription` and `Topic`, on the twin and on the adapter over every server."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from tests.support.queues import backends
from tests.support.queues.backends import DEAD_LETTERS, JOBS, Backend, receive
from tests.support.queues.pubsub_server import EMULATOR
from worker.errors import MessageRefused, QueueNotFound, SubscriptionNotFound


@pytest.fixture(params=["twin", "embedded", EMULATOR])
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    match request.param:
        case "twin":
            opening = backends.twin()
        case "embedded":
            opening = backends.adapter_on_embedded()
        case emulator:
            opening = backends.adapter_on(request.getfixturevalue(emulator))
    async with opening as opened:
        yield opened


async def test_a_subscription_describes_itself(backend: Backend) -> None:
    _, subscription = await backend.queue(exactly_once=True, dead_letters=True)

    facts = await subscription.facts()

    assert facts.name.endswith("jobs-worker")
    assert (facts.ack_deadline_seconds, facts.exactly_once, facts.max_delivery_attempts) == (60, True, 5)
    assert facts.dead_letter_topic is not None
    assert facts.dead_letter_topic.endswith(DEAD_LETTERS)


async def test_a_subscription_without_dead_letters_says_so(backend: Backend) -> None:
    _, subscription = await backend.queue()

    facts = await subscription.facts()

    assert (facts.exactly_once, facts.dead_letter_topic, facts.max_delivery_attempts) == (False, None, None)


async def test_a_published_message_is_delivered_as_it_was_sent(backend: Backend) -> None:
    topic, subscription = await backend.queue()

    message_id = await topic.publish(b"\x00{}", {"event_type": "job"}, ordering_key="video")
    (delivery,) = await receive(subscription)

    assert (delivery.message_id, delivery.data, delivery.ordering_key) == (message_id, b"\x00{}", "video")
    assert dict(delivery.attributes) == {"event_type": "job"}
    assert delivery.publish_time.utcoffset() == timedelta(0)
    assert delivery.delivery_attempt is None


async def test_a_message_of_several_megabytes_passes(backend: Backend) -> None:
    topic, subscription = await backend.queue()
    body = bytes(9_000_000)

    await topic.publish(body, {})

    assert (await receive(subscription))[0].data == body


@pytest.mark.emulator_fault("takes messages of any size with any number of attributes")
@pytest.mark.parametrize(
    ("data", "attributes"),
    [(b"x", {f"a{number}": "x" for number in range(101)}), (bytes(10_000_001), {})],
    ids=["101 attributes", "10 MB"],
)
async def test_a_message_beyond_the_limits_is_refused_and_the_next_one_passes(
    backend: Backend, data: bytes, attributes: dict[str, str]
) -> None:
    topic, subscription = await backend.queue()

    with pytest.raises(MessageRefused):
        await topic.publish(data, attributes)

    await topic.publish(b"small", {})
    assert [delivery.data for delivery in await receive(subscription)] == [b"small"]


async def test_a_pull_returns_no_more_than_it_was_asked_for(backend: Backend) -> None:
    topic, subscription = await backend.queue()
    for number in range(3):
        await topic.publish(b"%d" % number, {})

    assert 1 <= len(await subscription.pull(2)) <= 2


async def test_a_pull_waits_for_a_message(backend: Backend) -> None:
    topic, subscription = await backend.queue()

    async with asyncio.TaskGroup() as tasks:
        pulling = tasks.create_task(receive(subscription))
        tasks.create_task(topic.publish(b"x", {}))

    assert [delivery.data for delivery in pulling.result()] == [b"x"]


async def test_a_pull_of_an_empty_subscription_ends_with_nothing(backend: Backend) -> None:
    _, subscription = await backend.queue()

    assert await pull_nothing(backend, subscription)


async def test_a_message_out_on_lease_is_not_delivered_again(backend: Backend) -> None:
    topic, subscription = await backend.queue()
    await topic.publish(b"x", {})
    await receive(subscription)

    assert await pull_nothing(backend, subscription)


async def test_an_acked_message_does_not_come_again(backend: Backend) -> None:
    topic, subscription = await backend.queue()
    await topic.publish(b"x", {})
    (delivery,) = await receive(subscription)

    await subscription.ack(delivery.ack_id)

    await backend.pass_time(600)
    assert await pull_nothing(backend, subscription)


async def test_a_lease_that_ends_brings_the_message_again(backend: Backend) -> None:
    topic, subscription = await backend.queue()
    message_id = await topic.publish(b"x", {})
    (first,) = await receive(subscription)

    await subscription.extend([first.ack_id], 1)
    await backend.pass_time(1)
    (second,) = await receive(subscription)

    assert second.message_id == message_id
    assert second.ack_id != first.ack_id


async def test_an_extended_lease_holds_beyond_the_subscriptions_deadline(backend: Backend) -> None:
    topic, subscription = await backend.queue()
    await topic.publish(b"x", {})
    (delivery,) = await receive(subscription)

    assert await subscription.extend([delivery.ack_id], 600) == frozenset()

    await backend.pass_time(500)
    assert await pull_nothing(backend, subscription)


async def test_a_nacked_message_comes_again_at_once(backend: Backend) -> None:
    topic, subscription = await backend.queue()
    message_id = await topic.publish(b"x", {})
    (delivery,) = await receive(subscription)

    await subscription.extend([delivery.ack_id], 0)

    assert (await receive(subscription))[0].message_id == message_id


async def test_attempts_are_counted_where_there_are_dead_letters(backend: Backend) -> None:
    topic, subscription = await backend.queue(dead_letters=True)
    await topic.publish(b"x", {})

    (first,) = await receive(subscription)
    await subscription.extend([first.ack_id], 0)
    (second,) = await receive(subscription)

    assert (first.delivery_attempt, second.delivery_attempt) == (1, 2)


async def test_a_message_that_had_its_attempts_is_forwarded_with_its_attributes(backend: Backend) -> None:
    topic, subscription = await backend.queue(dead_letters=True)
    await topic.publish(b"x", {"video_id": "v"})
    for _ in range(5):
        (delivery,) = await receive(subscription)
        await subscription.extend([delivery.ack_id], 0)

    async with asyncio.TaskGroup() as tasks:
        forwarding = tasks.create_task(receive(backend.subscription(DEAD_LETTERS), stir=subscription))
        tasks.create_task(backend.pass_time(10))

    (forwarded,) = forwarding.result()
    assert forwarded.data == b"x"
    assert forwarded.attributes["video_id"] == "v"
    assert forwarded.attributes["CloudPubSubDeadLetterSourceDeliveryCount"] == "5"


@pytest.mark.parametrize("exactly_once", [False, True])
async def test_acking_twice_is_no_error(backend: Backend, exactly_once: bool) -> None:
    topic, subscription = await backend.queue(exactly_once=exactly_once)
    await topic.publish(b"x", {})
    (delivery,) = await receive(subscription)

    await subscription.ack(delivery.ack_id)
    await subscription.ack(delivery.ack_id)


async def test_only_exactly_once_returns_expired_ack_ids(backend: Backend) -> None:
    topic, subscription = await backend.queue(exactly_once=True)
    await topic.publish(b"1", {})
    await topic.publish(b"2", {})
    settled, held = await receive(subscription, 2)
    await subscription.ack(settled.ack_id)

    assert await subscription.extend([settled.ack_id, held.ack_id], 30) == {settled.ack_id}


async def test_without_exactly_once_no_ack_id_is_reported_as_expired(backend: Backend) -> None:
    topic, subscription = await backend.queue()
    await topic.publish(b"x", {})
    (delivery,) = await receive(subscription)
    await subscription.ack(delivery.ack_id)

    assert await subscription.extend([delivery.ack_id], 30) == frozenset()


async def test_extending_an_empty_batch_sends_no_request(backend: Backend) -> None:
    _, subscription = await backend.queue()

    assert await subscription.extend([], 30) == frozenset()


async def test_what_does_not_exist_is_not_found(backend: Backend) -> None:
    subscription = backend.subscription("missing")

    for call in (
        subscription.facts(),
        subscription.pull(1),
        subscription.extend(["projects/p/subscriptions/missing:1"], 30),
        subscription.ack("projects/p/subscriptions/missing:1"),
    ):
        with pytest.raises(SubscriptionNotFound):
            await call
    with pytest.raises(QueueNotFound):
        await backend.topic("missing").publish(b"x", {})


async def test_a_subscription_deleted_under_a_running_worker_is_not_found(backend: Backend) -> None:
    topic, subscription = await backend.queue()
    await topic.publish(b"x", {})
    (delivery,) = await receive(subscription)

    await backend.delete(JOBS)

    for call in (subscription.pull(1), subscription.extend([delivery.ack_id], 30), subscription.ack(delivery.ack_id)):
        with pytest.raises(SubscriptionNotFound):
            await call


async def pull_nothing(backend: Backend, subscription: backends.Subscription) -> bool:
    async with asyncio.TaskGroup() as tasks:
        pulling = tasks.create_task(subscription.pull(1))
        tasks.create_task(backend.pass_time(1))
    return list(pulling.result()) == []
