"""Publishing, pulling and seeking, on every server."""

import asyncio
from contextlib import suppress
from datetime import datetime

import pytest
from google.api_core import exceptions
from google.pubsub_v1 import types

from tests.support.queues.pubsub_server import ONCE, Server

MEGABYTE = 1_000_000


async def test_a_published_message_arrives_as_it_was_sent(server: Server) -> None:
    topic, subscription = await server.queue()

    (message_id,) = await server.publish(topic, b"\x00body", key="k", colour="red")
    (received,) = await server.receive(subscription)

    message = received.message
    assert (message.message_id, message.data, message.ordering_key) == (message_id, b"\x00body", "k")
    assert dict(message.attributes) == {"colour": "red"}
    assert isinstance(message.publish_time, datetime)
    assert received.delivery_attempt == 0


async def test_every_subscription_gets_its_own_copy(server: Server) -> None:
    topic, first = await server.queue()
    second = await server.subscription(topic)
    await server.publish(topic, b"x")

    (copy,) = await server.receive(first)
    await server.ack(first, copy.ack_id)

    assert len(await server.receive(second)) == 1


async def test_a_subscription_misses_what_was_published_before_it(server: Server) -> None:
    topic = await server.topic()
    await server.publish(topic, b"early")
    subscription = await server.subscription(topic)

    await server.publish(topic, b"late")

    assert [each.message.data for each in await server.receive(subscription)] == [b"late"]


async def test_messages_of_one_request_get_ids_of_their_own(server: Server) -> None:
    topic, subscription = await server.queue()

    ids = await server.publish(topic, *[b"%d" % number for number in range(50)])

    assert len(set(ids)) == 50
    assert {each.message.message_id for each in await server.receive(subscription, 50)} == set(ids)


async def test_a_request_without_content_is_refused(server: Server) -> None:
    topic = await server.topic()

    with pytest.raises(exceptions.InvalidArgument):
        await server.publish(topic)
    with pytest.raises(exceptions.InvalidArgument):
        await server.publish(topic, b"")


@pytest.mark.emulator_fault("it takes messages above 10 MB")
async def test_a_message_above_ten_megabytes_is_refused(server: Server) -> None:
    topic = await server.topic()

    with pytest.raises(exceptions.InvalidArgument):
        await server.publish(topic, bytes(10 * MEGABYTE))


async def test_a_message_just_below_ten_megabytes_passes(server: Server) -> None:
    topic, subscription = await server.queue()
    body = bytes(9_900_000)

    await server.publish(topic, body)

    assert (await server.receive(subscription))[0].message.data == body


async def test_a_waiting_pull_is_answered_when_a_message_comes(server: Server) -> None:
    topic, subscription = await server.queue()

    async with asyncio.TaskGroup() as tasks:
        pulling = tasks.create_task(server.pull(subscription))
        tasks.create_task(server.publish(topic, b"x"))

    assert [each.message.data for each in pulling.result()] == [b"x"]


async def test_a_pull_returns_no_more_than_it_asked_for(server: Server) -> None:
    topic, subscription = await server.queue()
    await server.publish(topic, b"1", b"2", b"3")

    assert len(await server.pull(subscription, limit=2)) <= 2


async def test_a_pull_for_no_message_is_refused(server: Server) -> None:
    _, subscription = await server.queue()

    with pytest.raises(exceptions.InvalidArgument):
        await server.pull(subscription, limit=0)


async def test_a_pull_given_up_by_the_client_loses_no_message(server: Server) -> None:
    topic, subscription = await server.queue()
    with suppress(exceptions.DeadlineExceeded):
        await server.pull(subscription, seconds=0.2)

    await server.publish(topic, b"x")

    await server.pass_time(10)
    assert len(await server.receive(subscription)) == 1


@pytest.mark.emulator_fault("it answers the waiting pull with no messages")
async def test_deleting_a_subscription_ends_its_waiting_pulls(server: Server) -> None:
    _, subscription = await server.queue()
    pulling = asyncio.create_task(server.pull(subscription, seconds=3))
    with suppress(exceptions.DeadlineExceeded):
        await server.pull(subscription, seconds=0.2)  # by then the first one waits as well

    await server.subscriber.delete_subscription(types.DeleteSubscriptionRequest(subscription=subscription), **ONCE)

    with pytest.raises(exceptions.NotFound):
        await pulling
