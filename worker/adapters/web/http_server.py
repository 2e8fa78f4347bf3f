"""The health port: answers GET requests from a thread of its own, so that a busy worker answers, and a stuck one too.

For the operator. It speaks HTTP/1.1 without TLS or login: bind it to 127.0.0.1, or to a network that may see job ids.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeAlias

import h11

REQUEST_SECONDS = 5.0
RECEIVE_BYTES = 1 << 14
JSON = "application/json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a route says now."""

    status: int
    body: bytes
    content_type: str = JSON


Route: TypeAlias = Callable[[], Answer]
"""Called in the server's thread; returns at once."""


class HealthPortTaken(Exception):
    """Nothing can listen there."""

    def __init__(self, host: str, port: int, reason: str) -> None:
        self.host, self.port = host, port
        super().__init__(f"HEALTH_PORT {port} on {host}: {reason}; stop what listens there, or set HEALTH_PORT=0")


class HealthServer:
    """Serves `routes` by path for the length of a `with` block. Port 0 takes a free one; `url` tells which.

    Entering raises `HealthPortTaken`.
    """

    def __init__(self, routes: Mapping[str, Route], *, host: str, port: int) -> None:
        self._routes, self._host, self._port = routes, host, port
        self._started: Future[tuple[int, Callable[[], object]]] = Future()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{self._host}:{self._port}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)
        self._thread.start()
        try:
            self._port, self._stop = self._started.result()
        except OSError as exc:
            raise HealthPortTaken(self._host, self._port, exc.strerror or str(exc)) from exc
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, _: TracebackType | None) -> None:
        self._stop()
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except OSError as exc:
            self._started.set_exception(exc)

    async def _serve(self) -> None:
        stopping, loop = asyncio.Event(), asyncio.get_running_loop()
        server = await asyncio.start_server(self._converse, self._host, self._port)
        port: int = server.sockets[0].getsockname()[1]
        self._started.set_result((port, lambda: loop.call_soon_threadsafe(stopping.set)))
        await stopping.wait()
        server.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        http = h11.Connection(h11.SERVER)
        with contextlib.suppress(TimeoutError, ConnectionError, h11.ProtocolError):
            async with asyncio.timeout(REQUEST_SECONDS):
                request = await _request(http, reader)
                writer.write(_response(http, request, self._answer(request)))
                await writer.drain()
        writer.close()

    def _answer(self, request: h11.Request) -> Answer:
        path = request.target.decode("ascii").partition("?")[0]
        if request.method not in {b"GET", b"HEAD"}:
            return Answer(status=405, body=b'{"error": "only GET is answered here"}\n')
        if path not in self._routes:
            return Answer(status=404, body=b'{"error": "there is no such page"}\n')
        return self._routes[path]()


async def _request(http: h11.Connection, reader: asyncio.StreamReader) -> h11.Request:
    """The head of the request. Raises h11's `ProtocolError` for what is none, an end without a byte included."""
    while True:
        event = http.next_event()
        if isinstance(event, h11.Request):
            return event
        if event is not h11.NEED_DATA:
            raise h11.RemoteProtocolError("no request")
        http.receive_data(await reader.read(RECEIVE_BYTES))


def _response(http: h11.Connection, request: h11.Request, answer: Answer) -> bytes:
    headers = {
        "content-type": answer.content_type,
        "content-length": str(len(answer.body)),
        "cache-control": "no-store",
        "connection": "close",
    }
    parts: list[bytes | None] = [http.send(h11.Response(status_code=answer.status, headers=list(headers.items())))]
    if request.method != b"HEAD":
        parts.append(http.send(h11.Data(data=answer.body)))
    parts.append(http.send(h11.EndOfMessage()))
    return b"".join(part for part in parts if part)
