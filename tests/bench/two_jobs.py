"""Do two jobs at once take longer than one of their joint length? Run as `python -m tests.bench.two_jobs [MINUTES]`.

One worker process with the tiny model, warm; it does one file of twice that length and two files of that length in
turns, so that whatever else the machine does hits both. Exit 1 when the median of two at once takes more than 1.15
times the median of one.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

from rich.console import Console
from rich.table import Table

from schemas.events import CompletedEvent
from tests.support.gcs import store_at
from tests.support.long_audio import speech_file
from tests.support.worker_process import WorkerProcess
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

MOST_RATIO = 1.15
MOST_SECONDS = 3600


def main() -> int:
    """Measure, print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.two_jobs")
    parser.add_argument("minutes", type=float, nargs="?", default=20)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        one, two = measure(asked.minutes, asked.rounds, Path(folder))
    ratio = statistics.median(two) / statistics.median(one)
    table = Table("jobs", "seconds", title=f"{2 * asked.minutes:g} minutes of audio, {asked.rounds} times each")
    table.add_row("one", " ".join(f"{seconds:.2f}" for seconds in one))
    table.add_row("two at once", " ".join(f"{seconds:.2f}" for seconds in two))
    Console().print(table)
    print(f"ratio of the medians {ratio:.3f} (at most {MOST_RATIO})")  # noqa: T201
    return int(ratio > MOST_RATIO)


def measure(minutes: float, rounds: int, folder: Path) -> tuple[list[float], list[float]]:
    """The seconds of one job and of two at once, in each round."""
    half = speech_file(minutes * 60, folder / "half.mp3")
    joint = speech_file(2 * minutes * 60, folder / "joint.mp3")
    with local_cloud(folder / "gcs") as cloud, mock.patch.dict(os.environ, cloud.environment):
        for audio in (half, joint):
            asyncio.run(_upload(cloud, audio))
        with WorkerProcess(folder / "log", {**cloud.environment, "TEMP_DIR": str(folder)}) as worker:
            worker.wait_ready()
            _seconds_of("warm-up", [half])
            one, two = [], []
            for number in range(rounds):
                one.append(_seconds_of(f"one-{number}", [joint]))
                two.append(_seconds_of(f"two-{number}", [half, half]))
    return one, two


def _seconds_of(name: str, files: Sequence[Path]) -> float:
    """From the first message to the last completed event."""
    jobs = {f"{name}-{number}": file.name for number, file in enumerate(files)}
    began = time.monotonic()
    for job_id, audio in jobs.items():
        job = {"job_id": job_id, "video_id": job_id, "audio_uri": f"gs://{AUDIO_BUCKET}/{audio}"}
        submit({**job, "force_method": "parakeet"}, project_id=PROJECT, topic=JOBS_TOPIC)
    for job_id in jobs:
        event = wait_for(job_id, project_id=PROJECT, subscription=COMPLETION_SUBSCRIPTION, timeout_seconds=MOST_SECONDS)
        assert isinstance(event, CompletedEvent), event
    return time.monotonic() - began


async def _upload(cloud: LocalCloud, path: Path) -> None:
    async with store_at(cloud.storage_url) as store:
        await store.upload_file(path, ObjectRef(AUDIO_BUCKET, path.name), "audio/mpeg")


if __name__ == "__main__":
    sys.exit(main())
