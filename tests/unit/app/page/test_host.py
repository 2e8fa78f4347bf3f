import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import pytest

from tests.support.workers.conditions import IDENTITY, condition
from tests.support.workers.pages import ask
from worker.adapters.web.answers import Answer
from worker.adapters.web.health_document import SeenWorker
from worker.adapters.web.http_server import HealthServer, is_loopback
from worker.adapters.web.rendering import render
from worker.app.page.host import WorkersPage, fleet_pages, worker_pages
from worker.app.status import health_answer
from worker.errors import StorageServiceError
from worker.settings import CloudSettings

CLOUD = CloudSettings(project_id="p", state_bucket="some-state")


def health_route() -> Answer:
    return health_answer(IDENTITY, condition(), 0.1)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104 - compared, not bound
        ("::", False),
        ("worker", False),
    ],
)
def test_only_addresses_of_this_machine_are_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_a_port_that_others_can_reach_reads_no_bucket() -> None:
    pages = worker_pages(lambda: health_route().body, IDENTITY, "0.0.0.0", CLOUD)  # noqa: S104 - not bound

    assert isinstance(pages.source, WorkersPage)
    assert pages.source.bucket is None
    assert not pages.only_local
    assert pages.upload is None


def test_the_port_of_this_machine_reads_the_state_bucket() -> None:
    pages = worker_pages(lambda: health_route().body, IDENTITY, "127.0.0.1", CLOUD)

    assert isinstance(pages.source, WorkersPage)
    assert pages.source.bucket is not None
    assert pages.source.bucket.name == "some-state"
    assert pages.only_local


def test_the_page_of_a_worker_shows_its_health_document() -> None:
    pages = worker_pages(lambda: health_route().body, IDENTITY, "127.0.0.1", None)

    with HealthServer({"/health": health_route}, host="127.0.0.1", port=0, pages=pages) as server:
        page = ask(f"{server.url}/").text
        job = ask(f"{server.url}/jobs/j1")
        document = json.loads(ask(f"{server.url}/health").text)

    assert "The worker is ready" in page
    assert document["worker"] in page
    assert job.status == 200
    assert 'aria-label="3 chunks in the order of the audio"' in job.text


class Unreadable:
    """A bucket that refuses."""

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        yield

    async def results(self) -> NoReturn:
        raise StorageServiceError("open", "gs://some-state", "503")


@pytest.mark.parametrize(
    ("bucket", "told"),
    [(None, "and this page reads no state bucket."), (Unreadable(), "and the state bucket cannot be read: ")],
)
async def test_the_page_of_a_job_without_a_trace_names_where_it_was_looked_for(bucket: Any, told: str) -> None:
    async def nobody() -> list[SeenWorker]:
        return []

    found = await WorkersPage(workers=nobody, bucket=bucket).job("j1")

    assert isinstance(found, str)
    assert found.startswith("No worker that this page can reach runs it, ")
    assert told in found


async def test_a_bucket_that_cannot_be_read_is_not_shown_as_an_empty_one() -> None:
    async def silent() -> list[SeenWorker]:
        return [SeenWorker(url="http://w-1:8080", health=None, problem="no answer")]

    seen = await WorkersPage(workers=silent, bucket=Unreadable()).overview()  # type: ignore[arg-type]

    assert (seen.failures, seen.costs) == (None, None)
    assert seen.lede == "Nothing is known of running jobs."
    assert seen.bucket_problem.startswith("The state bucket cannot be read: ")
    page = render("overview.html", seen=seen, version="0.1.0", can_upload=False)
    assert "No jobs yet" not in page
    assert "No job " not in page


async def test_a_text_that_is_no_job_id_is_looked_for_nowhere() -> None:
    async def nobody() -> list[SeenWorker]:
        raise AssertionError("asked a worker")

    assert str(await WorkersPage(workers=nobody).job("../claims/a")).startswith("No job has such an id")


def test_a_fleet_shows_the_workers_that_answer_and_names_those_that_do_not() -> None:
    def noise() -> Answer:
        return Answer(status=200, body=b"hello")

    with (
        HealthServer({"/health": health_route}, host="127.0.0.1", port=0) as worker,
        HealthServer({"/health": noise}, host="127.0.0.1", port=0) as other,
    ):
        urls = [worker.url, other.url, "http://127.0.0.1:9"]
        with HealthServer({}, host="127.0.0.1", port=0, pages=fleet_pages(urls, CloudSettings())) as server:
            page = ask(f"{server.url}/").text

    assert "1 of 3 workers are ready" in page
    assert "not a worker&#39;s answer" in page
    assert "http://127.0.0.1:9" in page
