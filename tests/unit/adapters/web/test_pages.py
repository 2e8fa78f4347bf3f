"""The routes of the page: what they send, whom they answer, and that text from outside stays text."""

import asyncio
import re
import socket
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import BinaryIO

import pytest

from tests.support.hostile_text import HOSTILE, is_visible
from tests.support.workers.pages import PagesInMemory, ask, nothing_seen, seen_worker, served
from worker.adapters.web.health_document import RunningFacts, SeenWorker
from worker.adapters.web.http_server import UploadRefused
from worker.adapters.web.views import (
    EndedRow,
    FailureGroup,
    Figures,
    JobStory,
    Overview,
    Problem,
    SpokenParagraph,
    SpokenWord,
    StoryStep,
    Transcript,
)

HARMLESS_TAGS = re.compile(
    "a|audio|b|bdi|body|br|button|circle|code|dd|details|div|dl|dt|footer|g|h[1-3]|head|header|html|i|input|label|li|line|"
    "link|main|meta|nav|ol|option|output|p|path|rect|script|section|select|small|span|strong|summary|svg|table|tbody|td|"
    "th|thead|time|title|tr|ul"
)


class Tags(HTMLParser):
    """Collects elements, attributes and text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(html: str) -> Tags:
    tags = Tags()
    tags.feed(html)
    return tags


def hostile_overview(text: str) -> Overview:
    now = datetime(2026, 11, 28, 14, tzinfo=UTC)
    return nothing_seen(
        problems=[Problem(title=text, text=text, remedy=text, command=text)],
        place=text,
        workers=[
            SeenWorker(url=text, health=None, problem=text),
            seen_worker(
                worker=text,
                status=text,
                reason=text,
                model={"name": text, "device": text},
                gpu={},
                versions={text: text},
                self_test={text: {"passed": False, "reason": text}},
            ),
        ],
        running=[
            (
                text,
                RunningFacts(
                    job_id=text,
                    video_id=text,
                    seconds=1,
                    audio_seconds=2,
                    audio_seconds_done=1,
                    chunks_done=1,
                    chunks_total=1,
                    chunks=("parakeet",),
                    deliveries=2,
                ),
            )
        ],
        recent=[
            EndedRow(
                job_id=text,
                video_id=text,
                code=text,
                note=text,
                audio_seconds=1,
                seconds=1,
                speed_ratio=1,
                segments=(),
                chunks=1,
                chunks_by_deepgram=0,
                cost_usd=0.1,
                baseline_usd=1,
                ended_at=now,
            )
        ],
        failures=[
            FailureGroup(code=text, message=text, remedy=text, command=text, is_retryable=True, jobs=[(text, now)])
        ],
        costs=(),
        bucket_problem=text,
    )


def hostile_story(text: str) -> JobStory:
    return JobStory(
        job_id=text,
        video_id=text,
        status="failed",
        lede=text,
        problem=Problem(title=text, command=text),
        chips=[text],
        steps=[StoryStep(at=None, title=text, text=text)],
        facts=[(text, text)],
        artefacts=[(text, text, 1)],
        transcript=Transcript(
            paragraphs=[
                SpokenParagraph(start_seconds=0, words=[SpokenWord(text=text, start_seconds=0, confidence=0.1)])
            ],
            duration_seconds=1,
            audio_src="/jobs/j/audio",
        ),
    )


@pytest.mark.parametrize(
    "text", [*HOSTILE, '"><img src=x onerror=alert(1)>', "' onclick='alert(1)", "javascript:alert(1)"]
)
def test_text_from_outside_is_shown_as_text(text: str) -> None:
    source = PagesInMemory(seen=hostile_overview(text), jobs={"j": hostile_story(text)})

    with served(source) as url:
        pages = [ask(f"{url}/").text, ask(f"{url}/jobs/j").text]

    for page in map(parsed, pages):
        assert [tag for tag in page.tags if not HARMLESS_TAGS.fullmatch(tag)] == []
        assert not [name for name, _ in page.attributes if name.startswith("on") or name == "style"]
        assert all(value.startswith(("/", "#")) for name, value in page.attributes if name in {"href", "src"} and value)
        assert page.tags.count("script") == 1
        assert is_visible(page.text.replace("\n", ""))
        assert all(is_visible(value) for _, value in page.attributes if value)


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8080", "[::2]:80", ""])
def test_a_page_of_this_machine_answers_no_request_that_names_another_host(host: str) -> None:
    with served(PagesInMemory(seen=nothing_seen())) as url:
        assert ask(f"{url}/", host=host).status == 421
        assert ask(f"{url}/jobs/j", host=host).status == 421


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "127.0.0.2:80", "localhost", "LocalHost:9", "[::1]:80"])
def test_a_page_answers_requests_that_name_this_machine(host: str) -> None:
    with served(PagesInMemory(seen=nothing_seen())) as url:
        assert ask(f"{url}/", host=host).status == 200


def test_a_page_that_others_may_reach_answers_to_any_name() -> None:
    with served(PagesInMemory(seen=nothing_seen()), only_local=False) as url:
        assert ask(f"{url}/", host="worker.internal").status == 200


def test_a_page_asks_nothing_of_other_hosts_and_allows_no_inline_script() -> None:
    with served(PagesInMemory(seen=nothing_seen())) as url:
        reply = ask(f"{url}/")

    assert "default-src 'none'" in reply.headers["content-security-policy"]
    assert "unsafe" not in reply.headers["content-security-policy"]
    assert re.findall(r"https?://", reply.text) == []


def test_the_files_of_the_page_are_served_and_no_others() -> None:
    with served(PagesInMemory(seen=nothing_seen())) as url:
        files = re.findall(r'(?:href|src)="(/static/[^"]+)"', ask(f"{url}/").text)
        found = [ask(url + file).status for file in files]
        others = [ask(f"{url}/static/{name}").status for name in ("views.py", "..%2Fviews.py", "%2e%2e/views.py")]

    assert found == [200, 200, 200]
    assert others == [404, 404, 404]


def test_an_unknown_job_is_a_page_that_says_so() -> None:
    with served(PagesInMemory(seen=nothing_seen())) as url:
        reply = ask(f"{url}/jobs/no-such-job")

    assert reply.status == 404
    assert "No trace of this job yet" in reply.text
    assert "It is not known." in reply.text


def test_failed_jobs_beyond_those_that_are_listed_are_counted() -> None:
    now = datetime(2026, 11, 28, 14, tzinfo=UTC)
    jobs = [(f"job-{number}", now) for number in range(73)]
    group = FailureGroup(
        code="INTERNAL_ERROR", message="", remedy="replay it", command="x", is_retryable=True, jobs=jobs
    )

    with served(PagesInMemory(seen=nothing_seen(failures=[group]))) as url:
        page = ask(f"{url}/").text

    assert "Show 73 jobs" in page
    assert page.count("/jobs/job-") == 50
    assert "and 23 more: klipstream-worker dlq list --code INTERNAL_ERROR" in page


@pytest.mark.parametrize(("usd", "shown"), [(0.02, "80.0 % less"), (0.13, "30.0 % more")])
def test_savings_and_costs_beyond_deepgram_s_price_read_differently(usd: float, shown: str) -> None:
    figures = Figures(usd=usd, baseline_usd=0.1)

    with served(PagesInMemory(seen=nothing_seen(figures=figures))) as url:
        assert f"{shown} than Deepgram" in ask(f"{url}/").text


def test_a_change_is_sent_to_an_open_page() -> None:
    source = PagesInMemory(seen=nothing_seen(headline="One"))

    with served(source) as url:
        first, later = events_of(url, source, nothing_seen(headline="Two"))

    assert "One" in first
    assert "Two" in later


def events_of(url: str, source: PagesInMemory, after: Overview) -> tuple[str, str]:
    """Return the first event, change what is seen, and return the next event that has contents."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"GET /updates HTTP/1.1\r\nhost: localhost\r\n\r\n")
        stream: BinaryIO = connection.makefile("rb")
        first = _next_main(stream)
        source.seen = after
        return first, _next_main(stream)


def _next_main(stream: BinaryIO) -> str:
    for line in stream:
        if line.startswith(b"event: main"):
            return next(stream).decode()
    raise AssertionError("the stream ended")


def test_the_server_ends_although_a_page_is_open() -> None:
    with served(PagesInMemory(seen=nothing_seen())) as url:
        host, _, port = url.removeprefix("http://").partition(":")
        connection = socket.create_connection((host, int(port)), timeout=10)
        connection.sendall(b"GET /updates HTTP/1.1\r\nhost: localhost\r\n\r\n")
        connection.recv(100)

    with connection:
        assert b"".join(iter(lambda: connection.recv(65536), b"")).endswith(b"0\r\n\r\n")


class _HungPages(PagesInMemory):
    """A source whose bucket does not answer before `answers` is set."""

    def __init__(self) -> None:
        super().__init__(seen=nothing_seen())
        self.asked, self.answers = threading.Event(), threading.Event()

    async def overview(self) -> Overview:
        self.asked.set()
        await asyncio.to_thread(self.answers.wait)
        return self.seen


def test_the_server_ends_although_a_bucket_does_not_answer() -> None:
    source = _HungPages()

    with served(source) as url:
        host, _, port = url.removeprefix("http://").partition(":")
        connection = socket.create_connection((host, int(port)), timeout=10)
        connection.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        source.asked.wait()

    source.answers.set()
    connection.close()


def test_a_stream_of_updates_is_not_opened_for_its_headers() -> None:
    with served(PagesInMemory(seen=nothing_seen())) as url:
        reply = ask(f"{url}/updates", "HEAD")

    assert (reply.status, reply.text) == (200, "")
    assert reply.headers["content-type"].startswith("text/event-stream")


def test_audio_is_sent_in_the_ranges_that_a_player_asks_for(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"0123456789")
    source = PagesInMemory(seen=nothing_seen(), files={"j": tmp_path / "a.wav"})

    with served(source) as url:
        reply = ask(f"{url}/jobs/j/audio", range="bytes=2-4")
        missing = ask(f"{url}/jobs/other/audio")

    assert (reply.status, reply.text) == (206, "234")
    assert missing.status == 404


async def take(name: str, content: AsyncIterator[bytes]) -> str:
    data = b"".join([part async for part in content])
    if not data:
        raise UploadRefused("the file is empty")
    return f"{name}-{len(data)}"


def test_an_uploaded_file_becomes_a_job() -> None:
    with served(PagesInMemory(seen=nothing_seen()), upload=take) as url:
        reply = ask(f"{url}/upload?name=a.mp3", "POST", b"12345", x_klipstream="upload")
        page = ask(f"{url}/")

    assert (reply.status, reply.text) == (201, '{"job_id":"a.mp3-5"}')
    assert "Drop an audio file here" in page.text


def test_a_file_that_cannot_become_a_job_is_refused_with_the_reason() -> None:
    with served(PagesInMemory(seen=nothing_seen()), upload=take) as url:
        reply = ask(f"{url}/upload?name=a.mp3", "POST", b"", x_klipstream="upload")

    assert (reply.status, reply.text) == (422, '{"error":"the file is empty"}')


def test_an_upload_that_breaks_off_makes_no_job_and_no_noise(caplog: pytest.LogCaptureFixture) -> None:
    broken = threading.Event()

    async def take_half(name: str, content: AsyncIterator[bytes]) -> str:
        try:
            return await take(name, content)
        finally:
            broken.set()

    with served(PagesInMemory(seen=nothing_seen()), upload=take_half) as url:
        host, _, port = url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            head = (
                b"POST /upload?name=a HTTP/1.1\r\nhost: localhost\r\nx-klipstream: upload\r\ncontent-length: 9\r\n\r\n"
            )
            connection.sendall(head + b"abc")
        assert broken.wait(10)

    assert caplog.records == []


def test_a_form_of_a_foreign_site_uploads_nothing() -> None:
    with served(PagesInMemory(seen=nothing_seen()), upload=take) as url:
        assert ask(f"{url}/upload?name=a", "POST", b"x").status == 403
        assert ask(f"{url}/upload?name=a", "POST", b"x", x_klipstream="upload", host="evil.example").status == 421


def test_reading_where_files_are_uploaded_is_refused_with_the_method_to_use() -> None:
    with served(PagesInMemory(seen=nothing_seen()), upload=take) as url:
        reply = ask(f"{url}/upload")

    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    assert "answered here: POST" in reply.text


def test_a_page_without_uploads_has_no_place_for_files() -> None:
    with served(PagesInMemory(seen=nothing_seen())) as url:
        assert ask(f"{url}/upload?name=a", "POST", b"x", x_klipstream="upload").status == 404
        assert "Drop an audio file" not in ask(f"{url}/").text
