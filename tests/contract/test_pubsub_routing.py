"""Routing and order of messages: dead letters, filters, ordering keys, on every server."""

import pytest
from google.api_core import exceptions
from google.pubsub_v1 import types

from tests.support.queues.pubsub_server import ONCE, Server

SOURCE = "CloudPubSubDeadLetterSource"


async def queue_with_dead_letters(server: Server) -> tuple[str, str, str]:
    dead_letters, kept = await server.queue()
    policy = types.DeadLetterPolicy(dead_letter_topic=dead_letters, max_delivery_attempts=5)
    topic, subscription = await server.queue(dead_letter_policy=policy)
    return topic, subscription, kept


async def test_after_five_nacks_a_message_is_forwarded_with_its_source(server: Server) -> None:
    topic, subscription, kept = await queue_with_dead_letters(server)
    await server.publish(topic, b"poison", colour="red")

    attempts = []
    for _ in range(5):
        (received,) = await server.receive(subscription)
        attempts.append(received.delivery_attempt)
        await server.nack(subscription, received.ack_id)
    (forwarded,) = await server.receive(kept, stir=subscription)

    assert attempts == [1, 2, 3, 4, 5]
    assert await server.pull_now(subscription) == []
    message = forwarded.message
    assert (message.data, message.attributes["colour"]) == (b"poison", "red")
    assert message.attributes[f"{SOURCE}DeliveryCount"] == "5"
    assert message.attributes[f"{SOURCE}Subscription"] == subscription.rpartition("/")[2]
    assert message.attributes[f"{SOURCE}SubscriptionProject"] == server.project
    assert message.attributes[f"{SOURCE}TopicPublishTime"].endswith("Z")


async def test_after_five_expiries_a_message_is_forwarded_as_well(server: Server) -> None:
    topic, subscription, kept = await queue_with_dead_letters(server)
    await server.publish(topic, b"poison")

    for _ in range(5):
        (received,) = await server.receive(subscription)
        await server.lease(subscription, 1, received.ack_id)
        await server.pass_time(1)

    (forwarded,) = await server.receive(kept, stir=subscription)
    assert forwarded.message.attributes[f"{SOURCE}DeliveryCount"] == "5"


async def test_without_its_dead_letter_topic_a_message_keeps_coming(embedded_server: Server) -> None:
    topic, subscription, kept = await queue_with_dead_letters(embedded_server)
    forwarding = (
        await embedded_server.subscriber.get_subscription(types.GetSubscriptionRequest(subscription=kept), **ONCE)
    ).topic
    await embedded_server.publisher.delete_topic(types.DeleteTopicRequest(topic=forwarding), **ONCE)
    await embedded_server.publish(topic, b"poison")

    for attempt in range(1, 8):
        (received,) = await embedded_server.pull_now(subscription)
        assert received.delivery_attempt == attempt
        await embedded_server.nack(subscription, received.ack_id)


@pytest.mark.emulator_fault("it takes filters and ignores them")
async def test_a_subscription_gets_what_its_filter_matches(server: Server) -> None:
    topic = await server.topic()
    subscription = await server.subscription(topic, filter='attributes.status = "failed"')

    await server.publish(topic, b"no", status="completed")
    await server.publish(topic, b"yes", status="failed")

    assert [each.message.data for each in await server.receive(subscription)] == [b"yes"]


@pytest.mark.emulator_fault("it takes any filter")
@pytest.mark.parametrize("expression", ["status = 1", 'attributes.a = "b', "attributes:" + "k" * 256])
async def test_a_filter_that_does_not_parse_is_refused(server: Server, expression: str) -> None:
    with pytest.raises(exceptions.InvalidArgument):
        await server.queue(filter=expression)


async def test_messages_of_one_key_wait_for_the_ones_before_them(server: Server) -> None:
    topic, subscription = await server.queue(enable_message_ordering=True)
    await server.publish(topic, b"1", b"2", b"3", key="k")

    first = await server.pull(subscription, limit=2)
    while_leased = await server.pull_now(subscription)
    await server.ack(subscription, *[each.ack_id for each in first])
    rest = await server.receive(subscription, 3 - len(first))

    assert while_leased == []
    assert [each.message.data for each in [*first, *rest]] == [b"1", b"2", b"3"]


async def test_keys_do_not_wait_for_each_other(server: Server) -> None:
    topic, subscription = await server.queue(enable_message_ordering=True)
    await server.publish(topic, b"a", key="a")
    await server.receive(subscription)

    await server.publish(topic, b"b", key="b")

    assert [each.message.data for each in await server.receive(subscription)] == [b"b"]


@pytest.mark.emulator_fault("it delivers none of the key's messages for seconds")
async def test_a_nack_takes_the_later_messages_of_its_key_back_with_it(server: Server) -> None:
    topic, subscription = await server.queue(enable_message_ordering=True)
    await server.publish(topic, b"1", b"2", b"3", key="k")
    first = await server.pull_now(subscription, limit=2)

    await server.nack(subscription, first[0].ack_id)

    again = await server.receive(subscription, 3, seconds=2)
    assert [each.message.data for each in again] == [b"1", b"2", b"3"]
