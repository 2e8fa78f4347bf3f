"""An HTTP proxy that does what networks do: refuses, cuts, damages, loses, stalls."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias
from urllib.parse import urlsplit

Forward: TypeAlias = Callable[[], Awaitable[bytes]]
"""Hands the request to the real server and returns its whole answer."""

Fault: TypeAlias = Callable[[Forward], AsyncIterator[bytes]]
"""Handles one request: whether it is forwarded, and which pieces of which answer the client gets."""


@dataclass(kw_only=True)
class FaultyProxy:
    """Forwards every request to `upstream`, one a connection.

    The next fault in `faults` handles the next request; when there is none left, what `choose` says to its head.
    """

    upstream: str
    url: str = ""
    faults: deque[Fault] = field(default_factory=deque)
    choose: Callable[[bytes], Fault] = lambda _head: plainly
    requests: list[bytes] = field(default_factory=list)
    """Heads of the requests seen."""
    handling: set[asyncio.Task[None] | None] = field(default_factory=set)
    """The event loop alone would forget a connection whose client is gone."""

    async def forward(self, request: bytes) -> bytes:
        address = urlsplit(self.upstream)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        try:
            writer.write(request)
            return await reader.read()
        finally:
            writer.close()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.handling.add(task := asyncio.current_task())
        try:
            head, body = await _request(reader)
            self.requests.append(head)
            fault = self.faults.popleft() if self.faults else self.choose(head)
            async for piece in fault(partial(self.forward, head + body)):
                writer.write(piece)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # asyncio's streams would log the cancellation of a connection that stalls when the proxy stops
        finally:
            writer.close()
            self.handling.discard(task)


@asynccontextmanager
async def faulty_proxy(upstream: str, choose: Callable[[bytes], Fault] | None = None) -> AsyncIterator[FaultyProxy]:
    proxy = FaultyProxy(upstream=upstream, **({} if choose is None else {"choose": choose}))
    server = await asyncio.start_server(proxy.handle, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        proxy.url = f"http://{host}:{port}"
        yield proxy


async def plainly(forward: Forward) -> AsyncIterator[bytes]:
    yield await forward()


def refuse(status: int) -> Fault:
    async def fault(_forward: Forward) -> AsyncIterator[bytes]:
        yield f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()

    return fault


def answer(body: bytes) -> Fault:
    """Answer 200 in the server's place."""

    async def fault(_forward: Forward) -> AsyncIterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body

    return fault


async def lose_end_of_chunked_body(forward: Forward) -> AsyncIterator[bytes]:
    """Send every byte of the body, chunked, and close the connection where the last chunk should come."""
    head, body = _split(await forward())
    status = head.split(b"\r\n")[0]
    yield status + b"\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body) + body + b"\r\n"


async def lose_reply(forward: Forward) -> AsyncIterator[bytes]:
    await forward()
    return
    yield


async def stall(_forward: Forward) -> AsyncIterator[bytes]:
    await asyncio.Event().wait()
    yield b""


def cut_body(after: int) -> Fault:
    async def fault(forward: Forward) -> AsyncIterator[bytes]:
        head, body = _split(await forward())
        yield head + body[:after]

    return fault


async def corrupt_body(forward: Forward) -> AsyncIterator[bytes]:
    head, body = _split(await forward())
    middle = len(body) // 2
    yield head + body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]


async def corrupt_and_cut_body(forward: Forward) -> AsyncIterator[bytes]:
    head, body = _split(await forward())
    middle = len(body) // 2
    yield head + bytes([body[0] ^ 1]) + body[1:middle]


def stall_body(after: int, stalled: asyncio.Event, resume: asyncio.Event) -> Fault:
    async def fault(forward: Forward) -> AsyncIterator[bytes]:
        head, body = _split(await forward())
        yield head + body[:after]
        stalled.set()
        await resume.wait()
        yield body[after:]

    return fault


async def _request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if line and not line.lower().startswith(b"connection:")]
    sizes = [int(line.split(b":")[1]) for line in lines if line.lower().startswith(b"content-length:")]
    body = await reader.readexactly(sum(sizes))
    return b"\r\n".join([*lines, b"Connection: close", b"", b""]), body


def _split(answer: bytes) -> tuple[bytes, bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return head + b"\r\n\r\n", body
