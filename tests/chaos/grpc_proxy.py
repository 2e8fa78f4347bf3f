"""A gRPC proxy that does what networks do. It forwards bytes, whatever the service: it knows methods by name only."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import grpc

from tests.chaos.dice import Dice, Fate

UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.so_reuseport", 0)]
STREAMS = frozenset({"StreamingPull"})


class GrpcProxy(grpc.GenericRpcHandler):
    """Every call goes to `upstream`, unless the dice say otherwise of its method (`Publish`, `Pull`, ...)."""

    def __init__(self, upstream: grpc.aio.Channel, dice: Dice) -> None:
        self._upstream, self._dice = upstream, dice

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """See grpc."""
        path = handler_call_details.method
        name = path.rsplit("/", 1)[1]
        if name in STREAMS:
            return grpc.stream_stream_rpc_method_handler(partial(self._stream, path, name))
        return grpc.unary_unary_rpc_method_handler(partial(self._call, path, name))

    async def _call(self, path: str, name: str, request: bytes, context: Any) -> bytes:
        await asyncio.sleep(self._dice.delay_seconds(name))
        fate = self._dice.fate(name)
        if fate is Fate.REFUSED:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "chaos: refused")
        if fate is Fate.STALLED:
            await asyncio.Event().wait()
        try:
            reply: bytes = await self._upstream.unary_unary(path)(request, timeout=context.time_remaining())
        except grpc.aio.AioRpcError as error:
            await context.abort(error.code(), error.details() or "", tuple(error.trailing_metadata() or ()))
        if fate is not Fate.WELL:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "chaos: the reply was lost")
        return reply

    async def _stream(self, path: str, name: str, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        fate = self._dice.fate(name)
        if fate is Fate.REFUSED:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "chaos: refused")
        replies: AsyncIterator[bytes] = self._upstream.stream_stream(path)(requests)
        async for reply in replies:
            if fate is not Fate.REPLY_LOST:
                yield reply
            if fate is not Fate.WELL:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "chaos: the stream was cut")


@asynccontextmanager
async def grpc_proxy(target: str, dice: Dice) -> AsyncIterator[str]:
    """`host:port` of a proxy in front of that server."""
    async with grpc.aio.insecure_channel(target, options=UNLIMITED) as upstream:
        server = grpc.aio.server(options=UNLIMITED)
        server.add_generic_rpc_handlers((GrpcProxy(upstream, dice),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            await server.stop(grace=None)
