"""Streaming pull, on every server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from google.api_core import exceptions
from google.pubsub_v1 import types

from tests.support.queues.pubsub_server import Server
from tests.support.wait import eventually


class Stream:
    """A streaming pull: requests of the client, and messages received."""

    def __init__(self) -> None:
        self._requests: asyncio.Queue[types.StreamingPullRequest | None] = asyncio.Queue()
        self.responses: AsyncIterator[types.StreamingPullResponse]

    async def requests(self) -> AsyncIterator[types.StreamingPullRequest]:
        while (request := await self._requests.get()) is not None:
            yield request

    def send(self, **fields: Any) -> None:
        self._requests.put_nowait(types.StreamingPullRequest(**fields))

    def close(self) -> None:
        self._requests.put_nowait(None)

    async def messages(self, count: int) -> list[types.ReceivedMessage]:
        received: list[types.ReceivedMessage] = []
        async with asyncio.timeout(10):
            while len(received) < count:
                received.extend((await anext(self.responses)).received_messages)
        return received


@asynccontextmanager
async def streaming(server: Server, subscription: str, **fields: Any) -> AsyncIterator[Stream]:
    stream = Stream()
    stream.send(subscription=subscription, **{"stream_ack_deadline_seconds": 10, **fields})
    call = await server.subscriber.streaming_pull(stream.requests(), retry=None, timeout=30)
    stream.responses = aiter(call)
    try:
        yield stream
    finally:
        stream.close()
        call.cancel()


async def test_messages_published_before_and_during_a_stream_arrive(server: Server) -> None:
    topic, subscription = await server.queue()
    await server.publish(topic, b"before")

    async with streaming(server, subscription) as stream:
        first = await stream.messages(1)
        await server.publish(topic, b"during")
        second = await stream.messages(1)

    assert [each.message.data for each in [*first, *second]] == [b"before", b"during"]


async def test_an_ack_on_the_stream_settles(server: Server) -> None:
    topic, subscription = await server.queue(enable_exactly_once_delivery=True)
    await server.publish(topic, b"x")

    async def lease_is_over() -> bool:
        try:
            await server.lease(subscription, 10, received.ack_id)
        except exceptions.InvalidArgument:
            return True
        return False

    async with streaming(server, subscription) as stream:
        (received,) = await stream.messages(1)
        stream.send(ack_ids=[received.ack_id])

        await eventually(lease_is_over)


async def test_a_nack_on_the_stream_brings_the_message_again(server: Server) -> None:
    topic, subscription = await server.queue()
    await server.publish(topic, b"x")

    async with streaming(server, subscription) as stream:
        (first,) = await stream.messages(1)
        stream.send(modify_deadline_ack_ids=[first.ack_id], modify_deadline_seconds=[0])
        (second,) = await stream.messages(1)

    assert second.message.message_id == first.message.message_id


async def test_exactly_once_confirms_acks_on_the_stream(embedded_server: Server) -> None:
    topic, subscription = await embedded_server.queue(enable_exactly_once_delivery=True)
    await embedded_server.publish(topic, b"x")

    async with streaming(embedded_server, subscription) as stream:
        (received,) = await stream.messages(1)
        stream.send(ack_ids=[received.ack_id])
        first = (await anext(stream.responses)).acknowledge_confirmation
        stream.send(ack_ids=[received.ack_id])
        second = (await anext(stream.responses)).acknowledge_confirmation

    assert (list(first.ack_ids), list(first.invalid_ack_ids)) == ([received.ack_id], [])
    assert (list(second.ack_ids), list(second.invalid_ack_ids)) == ([], [received.ack_id])


@pytest.mark.emulator_fault("it ignores max_outstanding_messages")
async def test_a_stream_holds_no_more_messages_than_it_asked_for(server: Server) -> None:
    topic, subscription = await server.queue()
    await server.publish(topic, b"1", b"2", b"3")

    async with streaming(server, subscription, max_outstanding_messages=2) as stream:
        held = await stream.messages(2)
        left = await server.pull_now(subscription)

        assert (len(held), len(left)) == (2, 1)


async def test_room_on_a_stream_is_filled_again_after_an_ack(server: Server) -> None:
    topic, subscription = await server.queue()
    await server.publish(topic, b"1", b"2")

    async with streaming(server, subscription, max_outstanding_messages=1) as stream:
        seen = await stream.messages(1)
        await server.ack(subscription, seen[0].ack_id)
        seen += await stream.messages(2 - len(seen))

    assert {each.message.data for each in seen} == {b"1", b"2"}


async def test_what_a_broken_stream_held_comes_back_when_its_leases_expire(embedded_server: Server) -> None:
    topic, subscription = await embedded_server.queue()
    await embedded_server.publish(topic, b"x")
    async with streaming(embedded_server, subscription, stream_ack_deadline_seconds=30) as stream:
        await stream.messages(1)

    await embedded_server.pass_time(29)
    assert await embedded_server.pull_now(subscription) == []
    await embedded_server.pass_time(1)

    assert len(await embedded_server.pull_now(subscription)) == 1


async def test_a_stream_the_client_closes_ends(embedded_server: Server) -> None:
    _, subscription = await embedded_server.queue()

    async with streaming(embedded_server, subscription) as stream:
        stream.close()

        assert [response async for response in stream.responses] == []


async def test_deleting_the_subscription_ends_its_streams(embedded_server: Server) -> None:
    topic, subscription = await embedded_server.queue()
    await embedded_server.publish(topic, b"x")

    async with streaming(embedded_server, subscription) as stream:
        await stream.messages(1)
        await embedded_server.subscriber.delete_subscription(subscription=subscription)

        with pytest.raises(exceptions.NotFound):
            await stream.messages(1)


async def test_a_stream_on_a_missing_subscription_is_not_found(server: Server) -> None:
    async with streaming(server, server.name("subscriptions")) as stream:
        with pytest.raises(exceptions.NotFound):
            await stream.messages(1)


@pytest.mark.parametrize("seconds", [9, 601])
async def test_a_stream_with_a_deadline_out_of_range_is_refused(server: Server, seconds: int) -> None:
    _, subscription = await server.queue()

    async with streaming(server, subscription, stream_ack_deadline_seconds=seconds) as stream:
        with pytest.raises(exceptions.InvalidArgument):
            await stream.messages(1)
