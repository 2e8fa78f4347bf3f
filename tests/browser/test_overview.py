"""The first page in a real browser: what moves, what is typed by strangers, phones, colours, assistive technology."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from tests.browser.conftest import Visit
from tests.support.hostile_text import HOSTILE
from tests.support.jobs.ended_jobs import completed, cost_of, failed
from tests.support.workers.pages import PagesInMemory, nothing_seen, result_of, seen_worker, served
from worker.adapters.web.health_document import RunningFacts
from worker.adapters.web.http_server import UploadRefused
from worker.adapters.web.views import Overview, Problem
from worker.app.page.overview import overview_of

LONG = "vod-2301877415-reprocess-after-model-update-2026-11-28-batch-0042-of-0512-priority-low-source-archive-7d20c1f"
NOW = datetime(2026, 11, 22, 11, tzinfo=UTC)

BUSY_MACHINE_MS = 30_000


def running(job_id: str, done: int = 2, **changes: Any) -> dict[str, Any]:
    facts = RunningFacts(
        job_id=job_id,
        video_id=job_id[:14],
        seconds=30,
        audio_seconds=9000,
        audio_seconds_done=600 * done,
        chunks_done=done,
        chunks_total=15,
        chunks=(*["parakeet"] * (done - 1), "deepgram", *[None] * (15 - done)),
        chunks_in_work=(done, done + 1),
        deliveries=2,
    )
    return {**facts.model_dump(mode="json"), **changes}


def busy(*job_ids: str, done: int = 2) -> Overview:
    jobs = {"in_flight": 2, "parked": 0, "free_slots": 2, "running": [running(each, done) for each in job_ids]}
    results = [
        result_of(completed("a", fallback=1), cost_of("a", parakeet_hours=2, deepgram_hours=0.2)),
        result_of(failed(LONG), cost_of(LONG, failed=True)),
    ]
    sick = seen_worker(worker="w-2", status="unhealthy", reason="TEMP_DIR is full", jobs={**jobs, "running": []})
    return overview_of([seen_worker(jobs=jobs), sick], results, NOW)


def test_a_page_follows_the_worker_without_a_reload(visit: Visit) -> None:
    source = PagesInMemory(seen=busy("job-1"))

    with served(source) as url:
        visit.page.goto(url)
        bar = visit.page.get_by_role("progressbar", name="Job of video job-1")
        expect(bar).to_have_attribute("aria-valuenow", "13")
        source.seen = busy("job-1", done=9)
        expect(bar).to_have_attribute("aria-valuenow", "60")

    assert visit.page.locator("#running .strip .d").count() == 2  # the job's and the legend's
    assert visit.problems == []


def test_an_update_keeps_a_place_for_files_and_its_report_where_a_problem_appears_above_it(visit: Visit) -> None:
    async def take(_name: str, content: AsyncIterator[bytes]) -> str:
        return str(len([part async for part in content]))

    source = PagesInMemory(seen=nothing_seen())
    with served(source, upload=take) as url:
        visit.page.goto(url)
        visit.page.set_input_files("#file", {"name": "a.mp3", "mimeType": "audio/mpeg", "buffer": b"x"})
        expect(visit.page.locator("#upload a")).to_be_visible()
        source.seen = busy("job-1")
        expect(visit.page.locator(".notice")).to_be_visible()

        expect(visit.page.locator("#upload a")).to_be_visible()


def test_each_of_several_files_has_its_own_report(visit: Visit) -> None:
    async def take(name: str, content: AsyncIterator[bytes]) -> str:
        if not [part async for part in content if part]:
            raise UploadRefused("the file is empty")
        return f"job-of-{name}"

    drop = """() => {
      const transfer = new DataTransfer();
      for (const [name, text] of [["a.mp3", "x"], ["b.mp3", ""]]) transfer.items.add(new File([text], name));
      document.querySelector("#drop").dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true }));
    }"""

    with served(PagesInMemory(seen=nothing_seen()), upload=take) as url:
        visit.page.goto(url)
        visit.page.evaluate(drop)

        expect(visit.page.locator("#upload p")).to_have_text(
            ["a.mp3 is submitted as job-of-a.mp3", "b.mp3 is not submitted: the file is empty"]
        )


HIDE = """(hidden) => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


def test_a_hidden_tab_holds_no_connection_and_catches_up_when_it_is_seen_again(visit: Visit) -> None:
    source = PagesInMemory(seen=busy("job-1"))

    with served(source) as url:
        visit.page.goto(url)
        expect(visit.page.locator("#clock")).to_contain_text("UTC")
        with visit.page.expect_event("requestfailed", lambda request: request.url.endswith("/updates")):
            visit.page.evaluate(HIDE, True)
        source.seen = busy("job-1", done=9)
        visit.page.evaluate(HIDE, False)

        expect(visit.page.get_by_role("progressbar", name="Job of video job-1")).to_have_attribute(
            "aria-valuenow", "60"
        )


def test_a_page_of_an_older_release_loads_itself_anew(visit: Visit) -> None:
    with served(PagesInMemory(seen=busy("job-1"))) as url:
        visit.page.goto(url)
        expect(visit.page.locator("#clock")).to_contain_text("UTC")
        visit.page.evaluate("document.body.dataset.release = 'older'; document.title = 'older'")
        with visit.page.expect_navigation():
            visit.page.evaluate(HIDE, True)
            visit.page.evaluate(HIDE, False)

        expect(visit.page.locator("#clock")).to_contain_text("UTC")
        assert visit.page.evaluate("document.body.dataset.release") != "older"


def test_an_update_keeps_the_focus_and_what_was_opened(visit: Visit) -> None:
    source = PagesInMemory(seen=busy("job-1"))

    with served(source) as url:
        visit.page.goto(url)
        visit.page.get_by_text("Show 1 job").click()
        visit.page.get_by_role("button", name="Copy").first.focus()
        source.seen = replace(busy("job-1", done=9), headline="2 of 2 workers are ready")
        expect(visit.page.get_by_role("heading", level=1)).to_have_text("2 of 2 workers are ready")

        assert visit.page.evaluate("document.activeElement.textContent") == "Copy"
        expect(visit.page.locator("details[open] a")).to_have_text(LONG)


@pytest.mark.parametrize("text", [*HOSTILE, '"><img src=x onerror=alert(1)>', "'\"></script><script>alert(1)</script>"])
def test_ids_of_strangers_are_text_and_nothing_else(visit: Visit, text: str) -> None:
    seen = replace(busy(text), problems=[Problem(title=text, text=text, remedy=text, command=text)], place=text)
    source = PagesInMemory(seen=seen)

    with served(source) as url:
        visit.page.goto(url)
        source.seen = replace(seen, headline=f"Later {text}")
        expect(visit.page.get_by_role("heading", level=1)).to_contain_text("Later")

        assert visit.problems == []
        assert visit.page.locator("img, iframe, b i").count() == 0
        assert {address[: len(url)] for address in visit.addresses} == {url}


def test_a_lost_connection_is_announced_with_the_time_of_the_last_answer(visit: Visit) -> None:
    with served(PagesInMemory(seen=busy("job-1"))) as url:
        visit.page.goto(url)
        expect(visit.page.locator("#clock")).to_contain_text("UTC")

    expect(visit.page.locator("#lost")).to_contain_text("No answer since", timeout=BUSY_MACHINE_MS)
    expect(visit.page.get_by_text("Live,")).to_be_hidden()


def test_a_command_is_copied_and_the_copy_is_announced(visit: Visit) -> None:
    visit.page.context.grant_permissions(["clipboard-read", "clipboard-write"])

    with served(PagesInMemory(seen=busy("job-1"))) as url:
        visit.page.goto(url)
        visit.page.locator("#failures").get_by_role("button", name="Copy").click()

        expect(visit.page.locator("#said")).to_have_text("Copied")
        copied = visit.page.evaluate("navigator.clipboard.readText()")

    assert copied == "klipstream-worker dlq replay --code AUDIO_NOT_FOUND --execute"


@pytest.mark.parametrize("width", [320, 390, 768, 1280, 1920])
def test_nothing_reaches_beyond_the_edge_of_the_screen(visit: Visit, width: int) -> None:
    visit.page.set_viewport_size({"width": width, "height": 900})

    seen = busy(LONG, "job-2")
    long_video = [(LONG, job.model_copy(update={"video_id": LONG})) for _, job in seen.running]

    with served(PagesInMemory(seen=replace(seen, running=long_video))) as url:
        visit.page.goto(url)
        visit.page.get_by_text("Show 1 job").click()

        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_passes_the_rules_of_accessibility(browser: Browser, scheme: str, width: int) -> None:
    """Axe checks names, roles, order and contrast; its script needs the content security policy out of the way."""
    context = browser.new_context(
        color_scheme="dark" if scheme == "dark" else "light", viewport={"width": width, "height": 900}, bypass_csp=True
    )
    with served(PagesInMemory(seen=busy(LONG, "job-2"))) as url:
        page = context.new_page()
        page.goto(url)
        found = Axe().run(page)
    context.close()

    assert [(each["id"], each["nodes"][0]["html"]) for each in found.response["violations"]] == []


def test_without_script_the_page_shows_everything(browser: Browser) -> None:
    context = browser.new_context(java_script_enabled=False)

    with served(PagesInMemory(seen=busy("job-1"))) as url:
        page = context.new_page()
        page.goto(url)
        expect(page.get_by_role("heading", level=1)).to_have_text("1 of 2 workers are ready")
        expect(page.get_by_text("upload the audio, then replay the job")).to_be_visible()
    context.close()


def test_an_empty_page_shows_the_command_that_fills_it(visit: Visit) -> None:
    with served(PagesInMemory(seen=nothing_seen(failures=(), costs=()))) as url:
        visit.page.goto(url)

        expect(visit.page.get_by_text("klipstream-worker submit ./talk.mp3 --wait")).to_be_visible()
