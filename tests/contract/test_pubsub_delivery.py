"""Publishing, pulling, leases, acks and redelivery, on every server."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from google.api_core import exceptions
from google.protobuf.duration_pb2 import Duration
from google.pubsub_v1 import types

from tests.support.pubsub import ONCE, Server

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


async def test_a_leased_message_is_not_delivered_to_another(server: Server) -> None:
    topic, subscription = await server.queue()
    await server.publish(topic, b"x")

    await server.receive(subscription)

    assert await server.pull_now(subscription) == []


async def test_an_acked_message_is_gone_for_good(server: Server) -> None:
    topic, subscription = await server.queue()
    await server.publish(topic, b"x")
    (received,) = await server.receive(subscription)
    await server.lease(subscription, 1, received.ack_id)

    await server.ack(subscription, received.ack_id)
    await server.pass_time(11)

    assert await server.pull_now(subscription) == []


async def test_an_expired_lease_brings_the_message_back_under_another_ack_id(server: Server) -> None:
    topic, subscription = await server.queue()
    await server.publish(topic, b"x")
    (first,) = await server.receive(subscription)

    await server.lease(subscription, 1, first.ack_id)
    await server.pass_time(1)
    (second,) = await server.receive(subscription)

    assert second.message.message_id == first.message.message_id
    assert second.ack_id != first.ack_id


async def test_an_extended_lease_outlasts_the_subscriptions_deadline(embedded_server: Server) -> None:
    topic, subscription = await embedded_server.queue(ack_deadline_seconds=10)
    await embedded_server.publish(topic, b"x")
    (received,) = await embedded_server.receive(subscription)

    await embedded_server.lease(subscription, 60, received.ack_id)

    await embedded_server.pass_time(59)
    assert await embedded_server.pull_now(subscription) == []
    await embedded_server.pass_time(1)
    assert len(await embedded_server.pull_now(subscription)) == 1


async def test_a_waiting_pull_is_answered_when_a_lease_expires(embedded_server: Server) -> None:
    topic, subscription = await embedded_server.queue()
    await embedded_server.publish(topic, b"x")
    await embedded_server.receive(subscription)

    async with asyncio.TaskGroup() as tasks:
        pulling = tasks.create_task(embedded_server.pull(subscription))
        tasks.create_task(embedded_server.pass_time(10))

    assert len(pulling.result()) == 1


async def test_a_nacked_message_comes_again_at_once(server: Server) -> None:
    topic, subscription = await server.queue(ack_deadline_seconds=600)
    await server.publish(topic, b"x")
    (first,) = await server.receive(subscription)

    await server.nack(subscription, first.ack_id)

    assert (await server.receive(subscription))[0].message.message_id == first.message.message_id


@pytest.mark.parametrize("seconds", [-1, pytest.param(601, marks=pytest.mark.emulator_fault("it leases for longer"))])
async def test_a_lease_out_of_range_is_refused(server: Server, seconds: int) -> None:
    topic, subscription = await server.queue()
    await server.publish(topic, b"x")
    (received,) = await server.receive(subscription)

    with pytest.raises(exceptions.InvalidArgument):
        await server.lease(subscription, seconds, received.ack_id)


@pytest.mark.parametrize("ack_ids", [[], ["malformed"]])
async def test_ack_ids_that_the_server_cannot_have_given_are_refused(server: Server, ack_ids: list[str]) -> None:
    _, subscription = await server.queue()

    with pytest.raises(exceptions.InvalidArgument):
        await server.ack(subscription, *ack_ids)
    with pytest.raises(exceptions.InvalidArgument):
        await server.lease(subscription, 10, *ack_ids)


async def test_without_exactly_once_a_stale_ack_id_is_no_error(server: Server) -> None:
    topic, subscription = await server.queue()
    await server.publish(topic, b"x")
    (received,) = await server.receive(subscription)
    await server.ack(subscription, received.ack_id)

    await server.ack(subscription, received.ack_id)
    await server.lease(subscription, 30, received.ack_id)


async def test_exactly_once_names_the_stale_ack_ids_and_settles_the_others(server: Server) -> None:
    topic, subscription = await server.queue(enable_exactly_once_delivery=True)
    await server.publish(topic, b"1", b"2")
    stale, fresh = (each.ack_id for each in await server.receive(subscription, 2))
    await server.ack(subscription, stale)

    with pytest.raises(exceptions.InvalidArgument) as caught:
        await server.ack(subscription, stale, fresh)

    assert caught.value.metadata == {stale: "PERMANENT_FAILURE_INVALID_ACK_ID"}
    with pytest.raises(exceptions.InvalidArgument) as caught:
        await server.lease(subscription, 10, fresh)
    assert caught.value.metadata == {fresh: "PERMANENT_FAILURE_INVALID_ACK_ID"}


async def test_exactly_once_refuses_the_ack_of_a_nacked_delivery(server: Server) -> None:
    topic, subscription = await server.queue(enable_exactly_once_delivery=True)
    await server.publish(topic, b"x")
    (received,) = await server.receive(subscription)
    await server.nack(subscription, received.ack_id)

    with pytest.raises(exceptions.InvalidArgument) as caught:
        await server.ack(subscription, received.ack_id)

    assert caught.value.reason == "EXACTLY_ONCE_ACKID_FAILURE"


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


async def test_a_retry_policy_doubles_the_delay_up_to_its_maximum(embedded_server: Server) -> None:
    policy = types.RetryPolicy(minimum_backoff=Duration(seconds=10), maximum_backoff=Duration(seconds=30))
    topic, subscription = await embedded_server.queue(retry_policy=policy)
    await embedded_server.publish(topic, b"x")

    for delay in (10, 20, 30, 30):
        (received,) = await embedded_server.pull_now(subscription)
        await embedded_server.nack(subscription, received.ack_id)
        await embedded_server.pass_time(delay - 1)
        assert await embedded_server.pull_now(subscription) == []
        await embedded_server.pass_time(1)


async def test_seek_to_the_future_settles_what_is_there(server: Server) -> None:
    topic, subscription = await server.queue()
    await server.publish(topic, b"1", b"2")
    await server.pull_now(subscription, limit=1)

    await seek(server, subscription, datetime.now(UTC) + timedelta(days=1))

    assert await server.pull_now(subscription) == []


async def test_seek_to_the_past_brings_acked_messages_back_where_they_are_retained(server: Server) -> None:
    topic, subscription = await server.queue(retain_acked_messages=True)
    await server.publish(topic, b"1", b"2")
    received = await server.receive(subscription, 2)
    await server.ack(subscription, *[each.ack_id for each in received])

    await seek(server, subscription, received[0].message.publish_time - timedelta(seconds=1))

    again = await server.receive(subscription, 2)
    assert [each.message.data for each in again] == [b"1", b"2"]


async def test_seek_without_a_target_is_refused(server: Server) -> None:
    _, subscription = await server.queue()

    with pytest.raises(exceptions.InvalidArgument):
        await server.subscriber.seek(types.SeekRequest(subscription=subscription), **ONCE)


async def seek(server: Server, subscription: str, moment: datetime) -> None:
    await server.subscriber.seek(types.SeekRequest(subscription=subscription, time=moment), **ONCE)
