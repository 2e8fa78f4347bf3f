"""Growth of memory with the length of the file: `python -m bench.memory [MINUTES ...]`.

Each length goes through a worker process of its own with the tiny model, after an hour of audio to warm it up: with
less its batches are not yet full, and what they take would count as growth. Counted is the proportional set size, every
0.2 s, of the worker with its helpers, of ffmpeg, and of the inference process above the most that it held during that
hour: the model and what it needs for a batch. Exit 1 when the last length takes more than 1.2 times what the first one
does.
"""

import asyncio
import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Annotated
from unittest import mock

import psutil
import typer
from rich.console import Console
from rich.table import Table

from bench.held import held_by, with_notes
from schemas.events import CompletedEvent
from tests.support.audio.long_audio import speech_file
from tests.support.services.gcs import store_at
from tests.support.workers.worker_process import WorkerProcess
from worker.client import submit, wait_for
from worker.embedded.local_cloud import (
    AUDIO_BUCKET,
    COMPLETION_SUBSCRIPTION,
    JOBS_TOPIC,
    PROJECT,
    LocalCloud,
    local_cloud,
)
from worker.ports import ObjectRef

MINUTES = [60.0, 180.0]
MOST_GROWTH = 1.2
WARM_UP_SECONDS = 3600
SAMPLE_SECONDS = 0.2
MEBIBYTE = 2**20


@dataclass(frozen=True, kw_only=True)
class MemoryUsage:
    """Bytes at one moment, or the most of each seen."""

    worker: int = 0
    ffmpeg: int = 0
    inference: int = 0
    """Above the warm model."""

    @property
    def total(self) -> int:
        """All of the worker's own."""
        return self.worker + self.ffmpeg + self.inference


@dataclass(frozen=True, kw_only=True)
class MemoryMeasured:
    """One file's way through a worker."""

    minutes: float
    idle: MemoryUsage
    peak: MemoryUsage
    """At the moment of the highest total."""
    model: int
    seconds: float
    words: int


def main(
    minutes: Annotated[list[float] | None, typer.Argument(help=f"of the files; default: {MINUTES}", min=0.1)] = None,
) -> None:
    """Measure each length, print the table."""
    lengths = minutes or MINUTES
    with tempfile.TemporaryDirectory() as folder:
        results = [measure(length, Path(folder, str(length))) for length in lengths]
    growth = results[-1].peak.total / results[0].peak.total
    Console().print(_table(results))
    print(f"{lengths[-1]:g} minutes take {growth:.2f} times the memory of {lengths[0]:g} (at most {MOST_GROWTH})")
    raise typer.Exit(growth > MOST_GROWTH)


def measure(minutes: float, folder: Path) -> MemoryMeasured:
    """Send a file of that length through a fresh worker on fresh servers; both keep their files in `folder`."""
    with local_cloud(folder / "gcs") as cloud, mock.patch.dict(os.environ, cloud.environment):
        asyncio.run(_upload(cloud, speech_file(WARM_UP_SECONDS, folder / "warm-up.mp3")))
        asyncio.run(_upload(cloud, speech_file(minutes * 60, folder / "speech.mp3")))
        notes = folder / "memory"
        environment = with_notes({**os.environ, **cloud.environment}, notes, hidden=os.geteuid() != 0)
        with WorkerProcess(folder / "log", {**environment, "TEMP_DIR": str(folder)}) as worker:
            worker.wait_ready()
            with sampling(worker, notes, model=0) as samples:
                _transcribe("warm-up")
            model = max(sample.inference for sample in samples)
            idle = usage(worker, notes, model)
            with sampling(worker, notes, model) as samples:
                event, seconds = _transcribe("speech")
    return MemoryMeasured(
        minutes=minutes,
        idle=idle,
        peak=max(samples, key=lambda sample: sample.total),
        model=model,
        seconds=seconds,
        words=event.transcription_metadata.words_count,
    )


def usage(worker: WorkerProcess, notes: Path, model: int) -> MemoryUsage:
    """Return the memory that the worker's processes hold now."""
    held = dict.fromkeys(("worker", "ffmpeg", "inference"), 0)
    for member in worker.family():
        with contextlib.suppress(psutil.NoSuchProcess):
            held[_role(member)] += held_by(member.pid, notes)
    return MemoryUsage(worker=held["worker"], ffmpeg=held["ffmpeg"], inference=max(0, held["inference"] - model))


@contextmanager
def sampling(worker: WorkerProcess, notes: Path, model: int) -> Iterator[list[MemoryUsage]]:
    """Fill the list for the length of the block."""
    samples: list[MemoryUsage] = []
    stopped = threading.Event()

    def sample() -> None:
        while not stopped.wait(SAMPLE_SECONDS):
            samples.append(usage(worker, notes, model))

    thread = threading.Thread(target=sample, name="memory")
    thread.start()
    try:
        yield samples
    finally:
        stopped.set()
        thread.join()


def _transcribe(name: str) -> tuple[CompletedEvent, float]:
    started = time.monotonic()
    job = {"job_id": name, "video_id": name, "audio_uri": f"gs://{AUDIO_BUCKET}/{name}.mp3"}
    submit(job, project_id=PROJECT, topic=JOBS_TOPIC)
    event = wait_for(name, project_id=PROJECT, subscription=COMPLETION_SUBSCRIPTION, timeout_seconds=3600)
    assert isinstance(event, CompletedEvent), event
    return event, time.monotonic() - started


async def _upload(cloud: LocalCloud, path: Path) -> None:
    async with store_at(cloud.storage_url) as store:
        await store.upload_file(path, ObjectRef(AUDIO_BUCKET, path.name), "audio/mpeg")


def _role(process: psutil.Process) -> str:
    command = " ".join(process.cmdline())
    if "ffmpeg" in process.name():
        return "ffmpeg"
    return "inference" if "parakeet.child" in command else "worker"


def _table(results: Sequence[MemoryMeasured]) -> Table:
    columns = ("minutes", "idle MiB", "peak MiB", "worker", "ffmpeg", "inference", "(model)", "seconds", "words")
    table = Table(*columns, title="proportional set size")
    for one in results:
        sizes = (one.idle.total, one.peak.total, *astuple(one.peak), one.model)
        figures = (f"{size / MEBIBYTE:.1f}" for size in sizes)
        table.add_row(f"{one.minutes:g}", *figures, f"{one.seconds:.0f}", str(one.words))
    return table


if __name__ == "__main__":
    typer.run(main)
