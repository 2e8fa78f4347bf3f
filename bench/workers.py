"""Worker processes on development servers, jobs for them, and what they hold of the machine's memory."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from bench.held import held_by, with_notes
from schemas.codes import Method
from schemas.events import CompletedEvent, CostEvent, FailedEvent
from worker import client
from worker.adapters.gcs import open_object_store
from worker.commands.console import fail
from worker.embedded.local_cloud import AUDIO_BUCKET, COMPLETION_SUBSCRIPTION, JOBS_TOPIC, PROJECT
from worker.embedded.samples import tiny_model
from worker.ports import ObjectRef

START_SECONDS = 300.0
POLL_SECONDS = 0.05
MEMORY_SECONDS = 1.0
"""Between two looks: four a second took 6 % of a processor from what is measured."""


class Worker:
    """One process of `klipstream-worker run`."""

    def __init__(self, environment: Mapping[str, str], log: Path, notes: Path) -> None:
        self._log = log
        self.notes = notes
        """File in which the worker notes its memory, for `watching_memory`."""
        with log.open("wb") as file:
            self._process = subprocess.Popen([sys.executable, "-m", "worker", "run"], env=environment, stderr=file)

    @property
    def pid(self) -> int:
        """Process id of the process that pulls."""
        return self._process.pid

    def wait_for(self, message: str, seconds: float = START_SECONDS) -> Mapping[str, Any]:
        """Return the first log event of that name. Exits if the worker ends or the time is over."""
        deadline = time.monotonic() + seconds
        while (event := next(self._events(message), None)) is None:
            if self._process.poll() is not None or time.monotonic() > deadline:
                fail(f"a worker ended early or took too long; its log ends: {self._log.read_text('utf-8')[-2000:]}")
            time.sleep(POLL_SECONDS)
        return event

    def stop(self) -> None:
        """Let it end as on a deployment."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()

    def _events(self, message: str) -> Iterator[Mapping[str, Any]]:
        for line in self._log.read_text("utf-8", errors="replace").splitlines():
            with suppress(json.JSONDecodeError):  # the last line may be half written
                event = json.loads(line)
                if isinstance(event, dict) and event.get("event") == message:
                    yield event


@dataclass(kw_only=True)
class Crew:
    """The workers of one subscription."""

    environment: Mapping[str, str]
    folder: Path
    notes: Path
    workers: list[Worker] = field(default_factory=list)

    def start(self) -> Worker:
        """Start one more. It may still be loading."""
        worker = Worker(self.environment, self.folder / f"worker-{len(self.workers)}.log", self.notes)
        self.workers.append(worker)
        return worker


@contextmanager
def crew(folder: Path, environment: Mapping[str, str]) -> Iterator[Crew]:
    """Workers with the tiny model on the CPU, where `environment` does not say otherwise; they stop with the block.

    Meanwhile the clients of this process see the same environment.
    """
    worker = {
        "PARAKEET_MODEL_NAME": str(tiny_model()),
        "PARAKEET_DEVICE": "cpu",
        "HEALTH_PORT": "0",
        "LOG_FORMAT": "json",
        "TEMP_DIR": str(folder),
    }
    notes = folder / "memory"
    complete = with_notes({**os.environ, **worker, **environment}, notes, hidden=os.geteuid() != 0)
    started = Crew(environment=complete, folder=folder, notes=notes)
    with mock.patch.dict(os.environ, environment):
        try:
            yield started
        finally:
            for one in started.workers:
                one.stop()


# jobs


@dataclass(frozen=True, kw_only=True)
class JobsDone:
    """Jobs that were published together and have all completed."""

    seconds: float
    """From the first publication to the last event."""
    published_at: float
    """The time of the day."""
    completed: Sequence[CompletedEvent]
    engine_seconds: float

    @property
    def audio_seconds(self) -> float:
        """Return the log events of all workers."""
        return sum(event.transcription_metadata.audio_duration_seconds for event in self.completed)


def upload(files: Collection[Path]) -> None:
    """Put files into the bucket of the audio, under their names."""

    async def put() -> None:
        async with open_object_store(project=PROJECT) as store:
            for file in files:
                await store.upload_file(file, ObjectRef(AUDIO_BUCKET, file.name), "application/octet-stream")

    asyncio.run(put())


def do_jobs(names: Sequence[str], seconds: float) -> JobsDone:
    """Publish a job for each uploaded file and wait for their events. Ends the command where one fails or is late."""
    run = uuid.uuid4().hex[:8]
    job_ids = [f"bench-{run}-{number}" for number in range(len(names))]
    published_at, began = time.time(), time.monotonic()
    for job_id, name in zip(job_ids, names, strict=True):
        job = {
            "job_id": job_id,
            "video_id": job_id,
            "audio_uri": f"gs://{AUDIO_BUCKET}/{name}",
            "force_method": Method.PARAKEET.value,
        }
        client.submit(job, project_id=PROJECT, topic=JOBS_TOPIC)
    completed, costs, ended = _endings(frozenset(job_ids), began, seconds)
    return JobsDone(
        seconds=ended,
        published_at=published_at,
        completed=completed,
        engine_seconds=sum(getattr(engine, "gpu_seconds", 0.0) for cost in costs for engine in cost.engines),
    )


def _endings(
    job_ids: frozenset[str], began: float, seconds: float
) -> tuple[list[CompletedEvent], list[CostEvent], float]:
    completed: dict[str, CompletedEvent] = {}
    costs: dict[str, CostEvent] = {}
    ended = 0.0
    with client.completions(
        project_id=PROJECT, subscription=COMPLETION_SUBSCRIPTION, timeout_seconds=seconds
    ) as events:
        for event in events:
            match event:
                case CompletedEvent() if event.job.job_id in job_ids:
                    completed[event.job.job_id] = event
                    ended = time.monotonic() - began
                case CostEvent() if event.job.job_id in job_ids:
                    costs[event.job.job_id] = event
                case FailedEvent():
                    fail(f"a job failed: {event.error.error_message}")
            if len(completed) == len(costs) == len(job_ids):
                return list(completed.values()), list(costs.values()), ended
    return fail(f"{len(job_ids) - len(completed)} job(s) did not end within {seconds:g} s")


# what they take of the machine


def processor_seconds(pid: int) -> float:
    """Spent so far by the process and by those of its children that have ended: by all ffmpegs, not by the engine."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(") ")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")  # utime, stime, and the same of its children


@contextmanager
def watching_memory(pid: int, notes: Path) -> Iterator[list[int]]:
    """Fill the list with the bytes that the process and its descendants hold, now and every second, and at the end.

    Counted is the proportional set size: what several share is counted once. `notes` is its worker's.
    """
    held: list[int] = []
    stopped = threading.Event()

    def look() -> None:
        held.append(sum(held_by(member, notes) for member in _family(pid)))

    def watch() -> None:
        look()
        while not stopped.wait(MEMORY_SECONDS):
            look()

    thread = threading.Thread(target=watch, name="memory")
    thread.start()
    try:
        yield held
    finally:
        stopped.set()
        thread.join()
        look()


def _family(pid: int) -> Iterator[int]:
    yield pid
    with suppress(OSError):  # it has ended
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text("ascii").split():
                yield from _family(int(child))
