"""Makes the pictures of the README from a real run: two workers with the tiny model on this machine, jobs through them.

    python docs/pictures.py          # docs/top.svg and docs/costs.png, in about two minutes

`top` is drawn while the jobs run; the costs page is what `klipstream-worker costs --html` makes of their results, seen
by a headless Chromium, which must be installed. Deepgram is the development stand-in.
"""

import asyncio
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from schemas.events import CompletedEvent, FailedEvent
from schemas.speech import Word
from worker import client
from worker.adapters.audio import find_ffmpeg
from worker.adapters.gcs import open_object_store
from worker.adapters.memory.recogniser import words_in
from worker.commands.health import fetch_health
from worker.commands.top import Seen, screen
from worker.embedded.deepgram import EmbeddedDeepgram
from worker.embedded.local_cloud import AUDIO_BUCKET, COMPLETION_SUBSCRIPTION, JOBS_TOPIC, PROJECT, local_cloud
from worker.embedded.own_thread import in_thread
from worker.embedded.samples import samples, tiny_model
from worker.ports import ObjectRef, Pcm

HERE = Path(__file__).parent
WORKERS = 2
MINUTES = 30
METHODS = ("auto", "auto", "auto", "parakeet", "auto", "hybrid")
MOST_SECONDS = 600.0
COLUMNS = 100


def main() -> None:
    """Make both."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        deepgram = stack.enter_context(in_thread(EmbeddedDeepgram(hear)))
        cloud = stack.enter_context(local_cloud(folder / "gcs"))
        os.environ.update(cloud.environment)  # for the clients of this process and the workers
        paid = {"DEEPGRAM_API_KEY": deepgram.api_key, "DEEPGRAM_BASE_URL": deepgram.url}
        urls = [stack.enter_context(worker(folder / f"{number}.log", paid)) for number in range(WORKERS)]
        asyncio.run(_upload(speech(folder / "talk.mp3")))
        job_ids = [_submit(number, method) for number, method in enumerate(METHODS, 1)]
        _draw_top(urls)
        _wait(set(job_ids))
        _draw_costs(folder / "costs.html")


async def hear(audio: Pcm) -> Sequence[Word]:
    """Return the words of the samples, as the stand-in for Deepgram."""
    return tuple(words_in(audio))


@contextmanager
def worker(log: Path, more: Mapping[str, str]) -> Iterator[str]:
    """Start a worker; yield the URL of its health port once it is ready."""
    own = {
        "PARAKEET_MODEL_NAME": str(tiny_model()),
        "PARAKEET_DEVICE": "cpu",
        "HEALTH_PORT": "0",
        "LOG_FORMAT": "json",
        "CHUNK_DURATION_MINUTES": "1",
    }
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "worker", "run"], env={**os.environ, **own, **more}, stderr=file
        )
    try:
        yield _ready(log)
    finally:
        process.terminate()
        process.wait()


def _ready(log: Path) -> str:
    while True:
        events = {event["event"]: event for event in _events(log)}
        if "worker.ready" in events:
            return str(events["health.listening"]["url"])
        time.sleep(0.2)


def _events(log: Path) -> Iterator[Mapping[str, Any]]:
    lines = log.read_text("utf-8").splitlines(keepends=True)
    yield from (json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n"))


def speech(file: Path) -> Path:
    """Write half an hour of the first sample to `file`."""
    source = ("-stream_loop", "-1", "-i", samples()[0].path, "-t", str(MINUTES * 60))
    subprocess.run([find_ffmpeg(), "-loglevel", "error", *source, "-ar", "8000", "-b:a", "32k", file], check=True)
    return file


async def _upload(file: Path) -> None:
    async with open_object_store(project=PROJECT) as store:
        await store.upload_file(file, ObjectRef(AUDIO_BUCKET, file.name), "audio/mpeg")


def _submit(number: int, method: str) -> str:
    job = {
        "job_id": f"vod-{number}",
        "video_id": str(2301234560 + number),
        "audio_uri": f"gs://{AUDIO_BUCKET}/talk.mp3",
        "force_method": method,
    }
    client.submit(job, project_id=PROJECT, topic=JOBS_TOPIC)
    return job["job_id"]


def _draw_top(urls: Sequence[str]) -> None:
    """Wait until most jobs have come some way and one has ended."""
    while True:
        seen = [Seen(url=url, health=fetch_health(url)) for url in urls]
        told = [one.health for one in seen if one.health]
        running = [job for health in told for job in health["jobs"]["running"] if job["audio_seconds_done"]]
        if len(running) >= len(METHODS) // 2 and sum(health["totals"]["completed"] for health in told):
            break
        time.sleep(0.05)
    console = Console(width=COLUMNS, record=True, file=io.StringIO())
    console.print(screen(seen))
    console.save_svg(str(HERE / "top.svg"), title="klipstream-worker top")


def _wait(job_ids: set[str]) -> None:
    with client.completions(
        project_id=PROJECT, subscription=COMPLETION_SUBSCRIPTION, timeout_seconds=MOST_SECONDS
    ) as events:
        for event in events:
            if isinstance(event, CompletedEvent | FailedEvent):
                job_ids.discard(event.job.job_id or "")
            if not job_ids:
                return
    sys.exit(f"not ended: {sorted(job_ids)}")


def _draw_costs(page: Path) -> None:
    subprocess.run([sys.executable, "-m", "worker", "costs", "--since", "1d", "--html", page], check=True)
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1100,1442")
    subprocess.run(["chromium", *flags, f"--screenshot={HERE / 'costs.png'}", page.as_uri()], check=True)


if __name__ == "__main__":
    main()
