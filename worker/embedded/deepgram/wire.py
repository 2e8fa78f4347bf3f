"""HTTP/1.1 for one connection, and the bodies of Deepgram's refusals."""

import asyncio
import json
import socket
import struct
from collections.abc import Mapping
from typing import TypeAlias

import h11

PLAIN_TEXT = "text/plain; charset=utf-8"
JSON = "application/json"

RECEIVE_BYTES = 1 << 16

Received: TypeAlias = "h11.Request | h11.Data | h11.EndOfMessage"


class ClientGone(Exception):
    """The client left, or what it sends is no HTTP, before its request was whole."""


class Exchange:
    """One request and its answer; the connection is closed after it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._http = h11.Connection(h11.SERVER)

    async def head(self) -> h11.Request:
        """The request line and the headers. Raises `ClientGone`."""
        event = await self._next()
        if not isinstance(event, h11.Request):
            raise ClientGone
        return event

    async def body(self) -> bytes:
        """The whole body. Raises `ClientGone`."""
        if self._http.they_are_waiting_for_100_continue:
            await self._send(h11.InformationalResponse(status_code=100, headers=[]))
        pieces: list[bytes] = []
        while isinstance(event := await self._next(), h11.Data):
            pieces.append(bytes(event.data))
        return b"".join(pieces)

    async def answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        """Send all of it. Raises `ConnectionError` when nobody listens any more."""
        fields = {"content-type": JSON, **headers, "content-length": str(len(body)), "connection": "close"}
        await self._send(h11.Response(status_code=status, headers=list(fields.items())))
        await self._send(h11.Data(data=body))
        await self._send(h11.EndOfMessage())

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        linger_not = struct.pack("ii", 1, 0)
        self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_not)
        self._writer.transport.abort()

    async def _next(self) -> Received:
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as exc:
                raise ClientGone from exc
            if isinstance(event, h11.Request | h11.Data | h11.EndOfMessage):
                return event
            if event is not h11.NEED_DATA:
                raise ClientGone
            await self._receive()

    async def _receive(self) -> None:
        try:
            self._http.receive_data(await self._reader.read(RECEIVE_BYTES))
        except ConnectionError as exc:
            raise ClientGone from exc

    async def _send(self, event: h11.Event) -> None:
        if data := self._http.send(event):
            self._writer.write(data)
            await self._writer.drain()


def error_body(code: str, message: str, request_id: str) -> bytes:
    """The most frequent one of the three shapes that refusals come in."""
    return json.dumps({"err_code": code, "err_msg": message, "request_id": request_id}).encode()
