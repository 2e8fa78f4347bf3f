"""A week of jobs for the pictures: two workers with the tiny model and a stand-in for Deepgram, on this machine.

Every job is really done, and its figures are as measured. The week is made afterwards: the results are dated back by
days. On two days a worker's inference process is killed at work, and the chunk that it was killed for twice falls back
to Deepgram.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from schemas.speech import Word
from schemas.state import ResultMarker
from worker import client
from worker.adapters.audio import find_ffmpeg
from worker.adapters.gcs import open_object_store
from worker.adapters.memory.recogniser import words_in
from worker.commands.health_port import fetch_health
from worker.embedded.deepgram import EmbeddedDeepgram
from worker.embedded.local_cloud import AUDIO_BUCKET, JOBS_TOPIC, PROJECT, STATE_BUCKET, local_cloud
from worker.embedded.own_thread import in_thread
from worker.embedded.samples import samples, tiny_model
from worker.ports import ObjectRef, Pcm

WORKERS = 2
MOST_SECONDS = 900.0
FIRST_VIDEO = 2_301_234_500
STARTED, SET_ASIDE = ("engine.started", "engine.replaced"), "engine.window_quarantined"


@dataclass(frozen=True, kw_only=True)
class Recording:
    """An audio object: one of the samples, again and again."""

    minutes: int
    sample: int

    @property
    def name(self) -> str:
        """The object's name."""
        return f"talk-{self.minutes}-{self.sample}.mp3"


SHORT, LONG, LIVELY = (Recording(minutes=minutes, sample=sample) for minutes, sample in ((6, 0), (14, 1), (9, 2)))
RECORDINGS = (SHORT, LONG, LIVELY)
MISSING = "missing.mp3"
DAYS: Sequence[Sequence[Recording | None]] = (
    (LONG, SHORT, LIVELY),
    (SHORT, LONG, LONG, LIVELY),
    (LONG, LONG, SHORT),
    (LIVELY, None, SHORT, LONG, SHORT),
    (LONG, SHORT, LIVELY, LONG),
    (SHORT, LIVELY),
)
"""The jobs of the days before today; None is a job whose audio is missing."""
BAD_DAYS = (1, 4)
"""Days on which a worker loses its inference process, twice in a row."""
TODAY: Sequence[Recording | None] = (LONG, LIVELY, None, SHORT, LONG, LIVELY, LONG)
NOW_RUNNING: Sequence[Recording | None] = (LONG, LIVELY, LIVELY, LONG)
JUST_BEGUN: Sequence[Recording | None] = (LONG, LONG)


@dataclass(kw_only=True)
class Week:
    """The running workers, and the jobs submitted so far."""

    logs: Sequence[Path]
    urls: Sequence[str]
    submitted: int = 0

    def submit(self, recordings: Sequence[Recording | None]) -> list[str]:
        """Submit a job of each and return the ids."""
        job_ids = []
        for recording in recordings:
            self.submitted += 1
            video_id = str(FIRST_VIDEO + 37 * self.submitted)
            uri = f"gs://{AUDIO_BUCKET}/{recording.name if recording else MISSING}"
            job_ids.append(f"vod-{video_id}")
            job = {"job_id": job_ids[-1], "video_id": video_id, "audio_uri": uri, "metadata": {"audio_uri": uri}}
            client.submit(job, project_id=PROJECT, topic=JOBS_TOPIC)
        return job_ids

    def wait(self, *, running: int = 0, far_chunks: int = 0) -> None:
        """Wait until all jobs have ended, or that many run on fit workers and have that many chunks."""
        deadline = time.monotonic() + MOST_SECONDS
        while time.monotonic() < deadline:
            found: list[Any] = [health for url in self.urls if (health := fetch_health(url))]
            ended = sum(health["totals"]["completed"] + health["totals"]["failed"] for health in found)
            far = [job for health in found for job in health["jobs"]["running"] if job["chunks_done"] >= far_chunks]
            are_fit = [health["status"] for health in found] == ["healthy"] * WORKERS
            if ended >= self.submitted or (running and are_fit and len(far) >= running):
                return
            time.sleep(0.1)
        raise TimeoutError(f"the jobs did not come as far within {MOST_SECONDS:g} s")

    def kill_engines(self) -> None:
        """Kill a worker's inference process and its successors until a window is set aside, whose chunk falls back."""
        self.wait(running=3, far_chunks=1)
        log, killed = self.logs[0], set[int]()
        before = _count(log, SET_ASIDE)
        while _count(log, SET_ASIDE) == before:
            pid = [int(event["pid"]) for event in _events(log) if event["event"] in STARTED][-1]
            if pid not in killed:
                killed.add(pid)
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)

    def past_days(self) -> str:
        """Do the jobs of every day before today, date them back, and return the longest one with a fallback."""
        days_ago: dict[str, int] = {}
        for number, jobs in enumerate(DAYS):
            days_ago |= dict.fromkeys(self.submit(jobs), len(DAYS) - number)
            if number in BAD_DAYS:
                self.kill_engines()
            self.wait()
        return asyncio.run(_date_back(days_ago))


@contextmanager
def good_week(folder: Path) -> Iterator[Week]:
    """Start servers and workers, and upload the audio."""
    with ExitStack() as stack:
        deepgram = stack.enter_context(in_thread(EmbeddedDeepgram(transcribe)))
        cloud = stack.enter_context(local_cloud(folder / "gcs"))
        os.environ.update(cloud.environment)  # for the clients of this process and the workers
        paid = {"DEEPGRAM_API_KEY": deepgram.api_key, "DEEPGRAM_BASE_URL": deepgram.url}
        logs = [folder / f"{number}.log" for number in range(WORKERS)]
        urls = [stack.enter_context(worker(log, paid)) for log in logs]
        asyncio.run(_upload([speech(recording, folder / recording.name) for recording in RECORDINGS]))
        yield Week(logs=logs, urls=urls)


async def transcribe(audio: Pcm) -> Sequence[Word]:
    """Return words as the stand-in for Deepgram."""
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


def speech(recording: Recording, file: Path) -> Path:
    """Write the recording to `file`, of conversations of the samples."""
    source = ("-stream_loop", "-1", "-i", samples()[recording.sample].path, "-t", str(recording.minutes * 60))
    subprocess.run([find_ffmpeg(), "-loglevel", "error", *source, "-ar", "8000", "-b:a", "32k", file], check=True)
    return file


def _count(log: Path, name: str) -> int:
    return sum(event["event"] == name for event in _events(log))


def _ready(log: Path) -> str:
    while True:
        events = {event["event"]: event for event in _events(log)}
        if "worker.ready" in events:
            return str(events["health.listening"]["url"])
        time.sleep(0.2)


def _events(log: Path) -> Iterator[Mapping[str, Any]]:
    lines = log.read_text("utf-8").splitlines(keepends=True)
    yield from (json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n"))


async def _upload(files: Sequence[Path]) -> None:
    async with open_object_store(project=PROJECT) as store:
        for file in files:
            await store.upload_file(file, ObjectRef(AUDIO_BUCKET, file.name), "audio/mpeg")


async def _date_back(days_ago: Mapping[str, int]) -> str:
    fallen_back = dict[str, int]()
    async with open_object_store(project=PROJECT) as store:
        for job_id, days in days_ago.items():
            ref, by = ObjectRef(STATE_BUCKET, f"results/{job_id}.json"), timedelta(days=days)
            marker = ResultMarker.model_validate_json((await store.read(ref))[0])
            messages = tuple(
                message.model_copy(update={"data": _dated_back(message.data, by)}) for message in marker.messages
            )
            dated = marker.model_copy(update={"messages": messages, "concluded_at": marker.concluded_at - by})
            if "deepgram" in marker.engines:
                fallen_back[job_id] = len(marker.engines)
            await store.write(ref, dated.model_dump_json().encode(), content_type="application/json")
    return max(fallen_back, key=lambda job_id: fallen_back[job_id])


def _dated_back(data: str, by: timedelta) -> str:
    document = json.loads(data)
    if "occurred_at" in document:
        document["occurred_at"] = (datetime.fromisoformat(document["occurred_at"]) - by).isoformat()
    return json.dumps(document)
