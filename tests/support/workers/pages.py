"""Pages in memory: a source that returns what the test put into it, and the health documents it is made of."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from schemas.codes import ErrorCode
from schemas.events import CompletedEvent, CostEvent, FailedEvent
from schemas.state import ResultMarker
from tests.support.workers.conditions import IDENTITY, condition
from worker.adapters.web.health_document import HealthDocument, SeenWorker, read_health
from worker.adapters.web.http_server import HealthServer, Pages, Upload
from worker.adapters.web.views import JobStory, Overview
from worker.app.page.bucket import JobResult
from worker.app.status import health_answer


@dataclass(kw_only=True)
class PagesInMemory:
    """A page source; the test changes its fields as it likes."""

    seen: Overview
    jobs: dict[str, JobStory] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        yield

    async def overview(self) -> Overview:
        return self.seen

    async def job(self, job_id: str) -> JobStory | str:
        return self.jobs.get(job_id, "It is not known.")

    async def audio(self, job_id: str) -> Path | None:
        return self.files.get(job_id)


@contextmanager
def served(source: PagesInMemory, *, only_local: bool = True, upload: Upload | None = None) -> Iterator[str]:
    """Serve the pages and yield their address."""
    pages = Pages(source=source, version="0.1.0", only_local=only_local, upload=upload)
    with HealthServer({}, host="127.0.0.1", port=0, pages=pages) as server:
        yield server.url


@dataclass(frozen=True, kw_only=True)
class Reply:
    status: int
    headers: dict[str, str]
    text: str


def ask(url: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Reply:
    """Send one request; `_` in the name of a header is a hyphen."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    try:
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request(method, target, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        text = answer.read().decode()
        return Reply(status=answer.status, headers={k.lower(): v for k, v in answer.getheaders()}, text=text)
    finally:
        connection.close()


def health(**changes: Any) -> HealthDocument:
    """A worker's health document, with some of its fields changed."""
    document = json.loads(health_answer(IDENTITY, condition(), 0.1).body)
    found = read_health({**document, **changes})
    assert found is not None
    return found


def seen_worker(**changes: Any) -> SeenWorker:
    return SeenWorker(url="http://w-1:8080", health=health(**changes))


def result_of(
    terminal: CompletedEvent | FailedEvent, *events: CostEvent, concluded_at: datetime | None = None
) -> JobResult:
    """The result of a job that ended with these events."""
    is_failed = isinstance(terminal, FailedEvent)
    marker = ResultMarker(
        job_id=terminal.job.job_id or "",
        fingerprint="f",
        run=terminal.run,
        outcome="failed" if is_failed else "completed",
        code=ErrorCode.AUDIO_NOT_FOUND if is_failed else None,
        messages=(),
        concluded_at=concluded_at or datetime(2026, 11, 28, 14, tzinfo=UTC),
    )
    return JobResult(marker=marker, events=[*events, terminal])


def nothing_seen(**changes: Any) -> Overview:
    facts: dict[str, Any] = {
        "headline": "The worker is ready",
        "lede": "",
        "seen_at": datetime(2026, 11, 28, tzinfo=UTC),
    }
    return Overview(**{**facts, **changes})
