"""Leases, acks and redelivery, on every server."""

import asyncio

import pytest
from google.api_core import exceptions
from google.protobuf.duration_pb2 import Duration
from google.pubsub_v1 import types

from tests.support.queues.pubsub_server import Server


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
