"""Processing of one request: check, recognise, answer, record."""

import asyncio
import json
import socket
import struct
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from aiohttp import web

from schemas.speech import Word
from worker.embedded.deepgram.audio import Undecodable, decode, fingerprint
from worker.embedded.deepgram.misbehaviour import Misbehave, Reply, Reset, Slow, error_body
from worker.embedded.deepgram.parameters import violations
from worker.embedded.deepgram.transcript import listen_response
from worker.ports import SAMPLE_RATE_HZ, Clock, Pcm

PATH = "/v1/listen"
JSON = "application/json"

Recognise: TypeAlias = Callable[[Pcm], Awaitable[Sequence[Word]]]
"""Any recogniser: the words of a whole upload, with their punctuation."""


@dataclass(kw_only=True)
class Receipt:
    """One request, filled in as it goes."""

    number: int
    request_id: str
    query: tuple[tuple[str, str], ...] = ()
    content_type: str = ""
    whole_body: bool = False
    fingerprint: str | None = None
    """Fingerprint of the decoded samples; None if they were not decoded."""
    audio_seconds: float = 0.0
    status: int | None = None
    """None: no answer was sent."""

    @property
    def paid(self) -> bool:
        """The service had the whole body and did not refuse it."""
        return self.whole_body and (self.status is None or self.status < 400)  # noqa: PLR2004 - HTTP's numbers


class RequestRefused(Exception):
    """The request is not as it should be."""

    def __init__(self, status: int, code: str, message: str) -> None:
        self.status, self.code, self.message = status, code, message
        super().__init__(message)


class ListenService:
    """Serves requests one by one or side by side; `receipts` has all of them in the order of their arrival."""

    def __init__(self, recognise: Recognise, misbehave: Misbehave, api_key: str, clock: Clock) -> None:
        self._recognise, self._misbehave, self._api_key, self._clock = recognise, misbehave, api_key, clock
        self.receipts: list[Receipt] = []
        self.under_way = 0
        self.most_under_way = 0

    async def serve(self, request: web.Request) -> web.Response:
        """Answer one request, whose body is still to be read; where it is reset, the returned answer goes nowhere."""
        number = len(self.receipts)
        receipt = Receipt(number=number, request_id=str(uuid.uuid5(uuid.NAMESPACE_URL, f"{PATH}#{number}")))
        self.receipts.append(receipt)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            reply = await self._misbehave_or_answer(request, receipt)
        finally:
            self.under_way -= 1
        headers = {"content-type": JSON, "dg-request-id": receipt.request_id, **reply.headers}
        response = web.Response(status=reply.status, body=reply.body, headers=headers)
        response.force_close()
        return response

    async def _misbehave_or_answer(self, request: web.Request, receipt: Receipt) -> Reply:
        fault = self._misbehave(receipt.number)
        if fault == Reset(after_upload=False):
            return _reset(request)
        body = await request.content.read()
        receipt.whole_body = True
        reply = await self._reply(request, body, receipt)
        match fault:
            case Reset():
                return _reset(request)
            case Slow(seconds=seconds):
                await self._clock.sleep(seconds)
            case Reply():
                reply = fault
        receipt.status = reply.status
        return reply

    async def _reply(self, request: web.Request, body: bytes, receipt: Receipt) -> Reply:
        try:
            self._check(request, receipt)
            return await self._answer(body, receipt)
        except RequestRefused as exc:
            return Reply(status=exc.status, body=error_body(exc.code, exc.message, receipt.request_id))

    def _check(self, request: web.Request, receipt: Receipt) -> None:
        receipt.query = tuple(request.query.items())
        receipt.content_type = request.headers.get("content-type", "")
        if (request.method, request.path) != ("POST", PATH):
            raise RequestRefused(404, "NOT_FOUND", f"the stand-in serves POST {PATH} alone")
        if request.headers.get("authorization") != f"Token {self._api_key}":
            raise RequestRefused(401, "INVALID_AUTH", "Invalid credentials.")
        if not receipt.content_type.startswith(("audio/", "application/octet-stream")):
            raise RequestRefused(
                415, "UNSUPPORTED_MEDIA_TYPE", "the stand-in takes audio alone, as audio/* or octet-stream"
            )
        if faults := violations(receipt.query):
            raise RequestRefused(400, "Bad Request", "; ".join(faults))

    async def _answer(self, body: bytes, receipt: Receipt) -> Reply:
        try:
            samples = await asyncio.to_thread(decode, body)
        except Undecodable as exc:
            raise RequestRefused(400, "Bad Request", f"failed to process audio: {exc}") from exc
        receipt.fingerprint = fingerprint(samples)
        receipt.audio_seconds = len(samples) / SAMPLE_RATE_HZ
        response = listen_response(
            await self._recognise(samples),
            query=dict(receipt.query),
            request_id=receipt.request_id,
            created=self._clock.now(),
            duration_seconds=receipt.audio_seconds,
            body=body,
        )
        return Reply(status=200, body=json.dumps(response).encode())


def _reset(request: web.Request) -> Reply:
    """End the connection with a TCP reset."""
    if request.transport is not None:
        linger_not = struct.pack("ii", 1, 0)
        request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_not)
        request.transport.abort()
    return Reply(status=500, body=b"")
