"""The health port: uvicorn in a thread of its own, which answers while the worker is busy, and while it is stuck.

For the operator. It speaks HTTP/1.1 without TLS or login: bind it to 127.0.0.1, or to a network that may see job ids.

Its pages are HTML, with server-sent events for what moves. They are read-only but the upload, which exists where a
source offers it (in `dev`). Pages on this machine alone answer only requests that name this machine, so that no foreign
site can read them through the user's browser.
"""

import asyncio
import json
import logging
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import h11
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from schemas.text import plain
from worker.adapters.web.answers import JSON, Answer, listen
from worker.adapters.web.rendering import FOLDER, release, render, render_main
from worker.adapters.web.views import JobStory, Overview

REQUEST_SECONDS = 5.0
"""Time for a request to arrive whole; then its connection is closed."""
SHUTDOWN_SECONDS = 1
"""Grace for open connections."""
JOIN_SECONDS = 2.0
"""A page's read of a bucket that does not answer is left behind after this."""
SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_BETWEEN_CHECKS = 0.25
MISDIRECTED = 421
STATIC_TYPES = {"style.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; media-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}
Upload = Callable[[str, AsyncIterator[bytes]], Awaitable[str]]
"""Takes a file's name and bytes, returns the id of its job. Raises `UploadRefused`."""


class HealthServer:
    """Serves `routes` by path, and `pages` beside them, inside a `with` block.

    Routes are called in the server's thread and return at once. Port 0 takes a free one; `url` has its number. Entering
    raises `HealthPortTaken`.
    """

    def __init__(
        self, routes: Mapping[str, Callable[[], Answer]], *, host: str, port: int, pages: "Pages | None" = None
    ) -> None:
        self._host, self._port = host, port
        self._started: Future[None] = Future()
        plain = [Route(path, _endpoint(route), methods=["GET"]) for path, route in routes.items()]
        app = Starlette(
            routes=[*plain, *(pages.routes() if pages else ())],
            exception_handlers={HTTPException: _refuse},
            lifespan=pages.lifespan if pages else None,
        )
        self._server = _Server(_config(app), self._started)
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


def _config(app: Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=_Protocol,
        loop="asyncio",
        ws="none",
        lifespan="on",
        log_config=None,
        log_level=logging.ERROR,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )


def _endpoint(route: Callable[[], Answer]) -> Callable[[Request], Any]:
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


class UploadRefused(Exception):
    """The file that cannot become a job; the message says what would be right."""


class PageSource(Protocol):
    """The data behind the pages; called in the server's event loop."""

    async def overview(self) -> Overview:
        """Return the first page as of now."""
        ...

    async def job(self, job_id: str) -> JobStory | str:
        """Return one job, or a sentence that says where it was looked for in vain."""
        ...

    async def audio(self, job_id: str) -> Path | None:
        """Return the job's audio as a local file; None where it is not at hand."""
        ...

    def opened(self) -> AbstractAsyncContextManager[None]:
        """Hold the connections that the other methods open."""
        ...


@dataclass(kw_only=True)
class Pages:
    """The routes over one source. `only_local` refuses requests that name another host than this machine."""

    source: PageSource
    version: str
    only_local: bool
    upload: Upload | None = None
    _latest: "_Rendered | None" = None
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock)

    def routes(self) -> Sequence[BaseRoute]:
        """Return every route."""
        routes = [
            Route("/", self._guarded(self._show_overview)),
            Route("/updates", self._guarded(self._stream_updates)),
            Route("/jobs/{job_id}", self._guarded(self._show_job)),
            Route("/jobs/{job_id}/updates", self._guarded(self._stream_job)),
            Route("/jobs/{job_id}/audio", self._guarded(self._send_audio)),
            Route("/static/{name}", self._send_static),
        ]
        if self.upload is not None:
            routes.append(Route("/upload", self._guarded(self._take_upload), methods=["POST"]))
        return routes

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Keep the source open."""
        async with self.source.opened():
            yield

    def _guarded(self, endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            host = request.headers.get("host", "").lower()
            name = host if host.endswith("]") else host.rpartition(":")[0] or host
            if self.only_local and not is_loopback(name):
                text = (
                    f"This page answers on this machine only, not as {plain(name, 100) or 'a host without a name'}.\n"
                )
                return Response(text, MISDIRECTED, headers=HEADERS, media_type="text/plain")
            return await endpoint(request)

        return guarded

    async def _show_overview(self, _: Request) -> Response:
        return self._html((await self._newest()).page)

    async def _show_job(self, request: Request) -> Response:
        job_id = request.path_params["job_id"]
        story = await self.source.job(job_id)
        if isinstance(story, str):
            return self._html(await self._rendered(render, "missing.html", job_id=job_id, reason=story), status=404)
        return self._html(await self._rendered(render, "job.html", story=story))

    async def _send_audio(self, request: Request) -> Response:
        path = await self.source.audio(request.path_params["job_id"])
        if path is None:
            raise HTTPException(404)
        return FileResponse(path, headers=HEADERS)

    async def _take_upload(self, request: Request) -> Response:
        # a header that forms and foreign pages cannot send without being asked first
        if self.upload is None or request.headers.get("x-klipstream") != "upload":
            raise HTTPException(403, "files are uploaded by the page alone")
        try:
            job_id = await self.upload(request.query_params.get("name", ""), request.stream())
        except UploadRefused as exc:
            return JSONResponse({"error": plain(str(exc))}, 422, headers=HEADERS)
        except ClientDisconnect:  # the tab was closed: there is no reader of an answer
            return Response(status_code=400)
        return JSONResponse({"job_id": job_id}, 201, headers=HEADERS)

    async def _send_static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in STATIC_TYPES:
            raise HTTPException(404)
        headers = {**HEADERS, "cache-control": "public, max-age=31536000, immutable"}
        return FileResponse(FOLDER / "static" / name, media_type=STATIC_TYPES[name], headers=headers)

    # what moves

    async def _stream_updates(self, request: Request) -> Response:
        async def contents() -> str:
            return (await self._newest()).main

        return _events(request, contents)

    async def _stream_job(self, request: Request) -> Response:
        job_id, final = request.path_params["job_id"], ""

        async def contents() -> str:
            nonlocal final
            if final:
                return final
            story = await self.source.job(job_id)
            if isinstance(story, str):
                return ""
            text = await self._rendered(render_main, "job.html", story=story)
            final = text if story.is_concluded else ""
            return text

        return _events(request, contents)

    async def _newest(self) -> "_Rendered":
        """Return the overview, rendered at most once a second for all readers."""
        async with self._looking:
            latest = self._latest
            if latest is None or time.monotonic() >= latest.good_until:
                seen = await self.source.overview()
                page = await self._rendered(render, "overview.html", seen=seen)
                main = await self._rendered(render_main, "overview.html", seen=seen)
                good_until = time.monotonic() + SECONDS_BETWEEN_LOOKS * 0.9
                latest = self._latest = _Rendered(page=page, main=main, good_until=good_until)
            return latest

    async def _rendered(self, form: Callable[..., str], template: str, **values: object) -> str:
        common = {"version": self.version, "can_upload": self.upload is not None}
        return await asyncio.to_thread(form, template, **common, **values)

    @staticmethod
    def _html(text: str, status: int = 200) -> Response:
        return Response(text, status, headers=HEADERS, media_type="text/html")


def is_loopback(host: str) -> bool:
    """Return True where the address is of this machine alone; any name but localhost counts as reachable."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True, kw_only=True)
class _Rendered:
    page: str
    main: str
    good_until: float


def _events(request: Request, contents: Callable[[], Awaitable[str]]) -> Response:
    """Send the contents when they change, and a sign of life in between; first the release, for older pages."""
    if request.method == "HEAD":
        return Response(media_type="text/event-stream", headers=HEADERS)

    async def events() -> AsyncIterator[str]:
        sent, wait = "", 0.0
        yield f"event: release\ndata: {release()}\n\n"
        while not request.app.state.is_stopping():
            if wait <= 0:
                text, wait = await contents(), SECONDS_BETWEEN_LOOKS
                yield f"event: main\ndata: {json.dumps(text)}\n\n" if text != sent else "event: alive\ndata: 1\n\n"
                sent = text
            await asyncio.sleep(SECONDS_BETWEEN_CHECKS)
            wait -= SECONDS_BETWEEN_CHECKS

    return StreamingResponse(events(), media_type="text/event-stream", headers=HEADERS)
