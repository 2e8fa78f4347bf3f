"""The routes of the page: HTML, server-sent events for what moves, files that it is made of.

Everything is read-only but the upload, which exists where a source offers it (in `dev`). A page on this machine alone
answers only requests that name this machine, so that no foreign site can read it through the user's browser.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from schemas.text import plain
from worker.adapters.web.rendering import FOLDER, release, render, render_main
from worker.adapters.web.views import JobStory, Overview

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


class UploadRefused(Exception):
    """The file that cannot become a job; the message says what would be right."""


class PageSource(Protocol):
    """The data behind the pages; every method may be called in any order, in the server's event loop."""

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


Upload = Callable[[str, AsyncIterator[bytes]], Awaitable[str]]
"""Takes a file's name and its bytes, and returns the id of the job made of it. Raises `UploadRefused`."""


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
    """Send the contents whenever they change, and a sign of life in between; first the release, for older pages."""
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
