"""The health port: uvicorn in a thread of its own, which answers while the worker is busy, and while it is stuck.

For the operator. It speaks HTTP/1.1 without TLS or login: bind it to 127.0.0.1, or to a network that may see job ids.
"""

import asyncio
import json
import logging
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import h11
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.routing import Route as HttpRoute
from uvicorn.protocols.http.h11_impl import H11Protocol

from worker.adapters.web.answers import JSON, Route, listen

REQUEST_SECONDS = 5.0
"""A connection whose next request has not arrived whole by then is closed."""
SHUTDOWN_SECONDS = 1
"""Grace for open connections; a worker has eight seconds after SIGTERM."""
JOIN_SECONDS = 2.0
"""A page's read of a bucket that does not answer is left behind after this."""


class HostedPages(Protocol):
    """Routes beside the plain ones, and what must be open while they are served."""

    def routes(self) -> Sequence[BaseRoute]:
        """Return the routes."""
        ...

    def lifespan(self, app: Starlette) -> AbstractAsyncContextManager[None]:
        """Hold what the routes need, in the server's event loop."""
        ...


class HealthServer:
    """Serves `routes` by path, and `pages` beside them, inside a `with` block.

    Port 0 takes a free one; `url` has its number. Entering raises `HealthPortTaken`.
    """

    def __init__(self, routes: Mapping[str, Route], *, host: str, port: int, pages: HostedPages | None = None) -> None:
        self._host, self._port = host, port
        self._started: Future[None] = Future()
        plain = [HttpRoute(path, _endpoint(route), methods=["GET"]) for path, route in routes.items()]
        app = Starlette(
            routes=[*plain, *(pages.routes() if pages else ())],
            exception_handlers={HTTPException: _refuse},
            lifespan=pages.lifespan if pages else None,
        )
        self._server = _Server(_config(app, "on" if pages else "off"), self._started)
        app.state.is_stopping = lambda: self._server.should_exit

    @property
    def url(self) -> str:
        """The address that it listens on."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    def __enter__(self) -> Self:
        listening = listen(self._host, self._port)
        self._port = listening.getsockname()[1]
        self._thread = threading.Thread(target=self._run, args=(listening,), name="health", daemon=True)
        self._thread.start()
        self._started.result()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, _: TracebackType | None) -> None:
        self._server.should_exit = True
        self._thread.join(JOIN_SECONDS)

    def _run(self, listening: socket.socket) -> None:
        asyncio.run(self._server.serve(sockets=[listening]))


class _Server(uvicorn.Server):
    """Sets `started_at_last` once it accepts connections."""

    def __init__(self, config: uvicorn.Config, started_at_last: Future[None]) -> None:
        super().__init__(config)
        self._started_at_last = started_at_last

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._started_at_last.set_result(None)


class _Protocol(H11Protocol):
    """Closes connections that send no request, or only a part of one."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.loop.call_later(REQUEST_SECONDS, self._close_if_silent)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self.loop.call_later(REQUEST_SECONDS, self._close_if_silent)

    def _close_if_silent(self) -> None:
        if self.conn.their_state is h11.IDLE and self.timeout_keep_alive_task is None:
            self.transport.close()


def _config(app: Starlette, lifespan: Literal["on", "off"]) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=_Protocol,
        loop="asyncio",
        ws="none",
        lifespan=lifespan,
        log_config=None,
        log_level=logging.ERROR,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )


def _endpoint(route: Route) -> Callable[[Request], Any]:
    async def endpoint(_: Request) -> Response:
        answer = route()
        return _response(answer.status, answer.body, answer.content_type)

    return endpoint


async def _refuse(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    allowed = ", ".join(sorted((error.headers or {}).get("Allow", "").split(", ")))
    reasons = {404: "there is no such page", 405: f"answered here: {allowed}"}
    body = json.dumps({"error": reasons.get(error.status_code, error.detail)}).encode() + b"\n"
    response = _response(error.status_code, body, JSON)
    if allowed:
        response.headers["allow"] = allowed
    return response


def _response(status: int, body: bytes, content_type: str) -> Response:
    headers = {"content-type": content_type, "cache-control": "no-store", "connection": "close"}
    return Response(body, status, headers=headers)
