"""Makes the pictures of the page from a real run: two workers with the tiny model on this machine, jobs through them.

    python docs/page_pictures.py     # docs/page*.png, in about three minutes

Deepgram is the development stand-in, and the words are of synthetic speech; everything else is as in production.
Debian's chromium must be installed.
"""

import asyncio
import os
import shutil
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from pictures import AUDIO_BUCKET, PROJECT, hear, speech, worker
from playwright.sync_api import Browser, sync_playwright

from worker import client
from worker.adapters.gcs import open_object_store
from worker.adapters.web.http_server import HealthServer
from worker.app.page.host import fleet_pages
from worker.commands.console import load_settings
from worker.commands.health import document
from worker.embedded.deepgram import EmbeddedDeepgram
from worker.embedded.local_cloud import JOBS_TOPIC, local_cloud
from worker.embedded.own_thread import in_thread
from worker.embedded.samples import samples
from worker.ports import ObjectRef

HERE = Path(__file__).parent
WORKERS = 2
SAMPLE = samples()[-1].path
SHORT = [
    ("2301234501", SAMPLE.name, "auto"),
    ("2301234502", SAMPLE.name, "deepgram"),
    ("2301234503", "notes.mp3", "auto"),
]
MISSING = [("2301200417", "missing.mp3", "auto"), ("2301200418", "missing.mp3", "auto")]
LONG = [
    ("2301234567", "talk.mp3", "auto"),
    ("2301987654", "talk.mp3", "hybrid"),
    ("2301455120", "talk.mp3", "auto"),
    ("2301877415", "talk.mp3", "auto"),
    ("2301644093", "talk.mp3", "auto"),
]
MOST_SECONDS = 600.0
FAR_CHUNKS = 4


def main() -> None:
    """Run the jobs, and look at the page while they run and afterwards."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        deepgram = stack.enter_context(in_thread(EmbeddedDeepgram(hear)))
        cloud = stack.enter_context(local_cloud(folder / "gcs"))
        os.environ.update(cloud.environment)  # for the clients of this process and the workers
        paid = {"DEEPGRAM_API_KEY": deepgram.api_key, "DEEPGRAM_BASE_URL": deepgram.url}
        urls = [stack.enter_context(worker(folder / f"{number}.log", paid)) for number in range(WORKERS)]
        pages = fleet_pages(urls, load_settings().cloud, objects=folder / "gcs")
        page = stack.enter_context(HealthServer({}, host="127.0.0.1", port=0, pages=pages)).url
        asyncio.run(_upload(folder))  # before Playwright, which runs an event loop in this thread
        browser = stack.enter_context(sync_playwright()).chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        _run([*SHORT, *MISSING], urls, ended=len(SHORT) + len(MISSING))
        _run(LONG, urls, running=3)
        _draw(browser, page, "page", width=1280, height=1180)
        _draw(browser, page, "page-phone", width=390, height=844, scheme="dark")
        _wait(urls, len(SHORT) + len(MISSING) + len(LONG))
        _draw(browser, f"{page}/jobs/vod-2301987654", "page-job", width=1280, height=900, word=40)
        _draw(browser, page, "page-dark", width=1280, height=1180, scheme="dark")


async def _upload(folder: Path) -> None:
    (folder / "notes.mp3").write_text("these are notes, not audio" * 100)
    async with open_object_store(project=PROJECT) as store:
        for file in (speech(folder / "talk.mp3"), SAMPLE, folder / "notes.mp3"):
            await store.upload_file(file, ObjectRef(AUDIO_BUCKET, file.name), "audio/mpeg")


def _run(jobs: list[tuple[str, str, str]], urls: list[str], *, ended: int = 0, running: int = 0) -> None:
    for video_id, audio, method in jobs:
        uri = f"gs://{AUDIO_BUCKET}/{audio}"
        job = {
            "job_id": f"vod-{video_id}",
            "video_id": video_id,
            "audio_uri": uri,
            "force_method": method,
            "metadata": {"audio_uri": uri},
        }
        client.submit(job, project_id=PROJECT, topic=JOBS_TOPIC)
    _wait(urls, ended, running)


def _wait(urls: list[str], ended: int, running: int = 0) -> None:
    """Wait until that many jobs have ended, and that many others are well in progress."""
    deadline = time.monotonic() + MOST_SECONDS
    while time.monotonic() < deadline:
        found = [health for url in urls if (health := document(url))]
        totals = [health["totals"] for health in found]
        far = [job for health in found for job in health["jobs"]["running"] if job["chunks_done"] >= FAR_CHUNKS]
        if sum(each["completed"] + each["failed"] for each in totals) >= ended and len(far) >= running:
            return
        time.sleep(0.2)
    raise TimeoutError(f"{ended} ended and {running} running jobs did not come within {MOST_SECONDS:g} s")


def _draw(
    browser: Browser, url: str, name: str, *, width: int, height: int, scheme: str = "light", word: int | None = None
) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if scheme == "dark" else "light"
    )
    page = context.new_page()
    page.goto(url)
    page.locator("h1").wait_for()
    if word is not None:
        page.locator("#words [data-t]").nth(word).click()
        page.locator(".now").wait_for()
    page.screenshot(path=HERE / f"{name}.png")
    context.close()


main()
