"""`demo`: the whole worker on this machine, from three published jobs to transcripts, events and costs.

Nothing is faked but the cloud: the servers are the embedded ones, the worker is the command `run` in a process of its
own, the jobs go in and the events come out through `worker.client`, as they do for the pipeline.
"""

import asyncio
import csv
import mimetypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.panel import Panel

from schemas.codes import Method
from schemas.events import CompletedEvent, CostEvent, Event, FailedEvent, StoredArtefact
from worker import client
from worker.adapters.gcs import open_object_store
from worker.app.recogniser import demand_engine, may_do_without_gpu
from worker.commands.console import cell, fail, line, load_settings, out, say
from worker.commands.demo_bars import DemoBars
from worker.commands.submit import describe
from worker.commands.tables import NOTHING, Field, FittedTable, print_fitted
from worker.embedded.local_cloud import (
    AUDIO_BUCKET,
    COMPLETION_SUBSCRIPTION,
    JOBS_TOPIC,
    OUTPUT_BUCKET,
    PROJECT,
    LocalCloud,
    local_cloud,
)
from worker.embedded.samples import samples, tiny_model
from worker.ports import ObjectRef
from worker.telemetry import configure_logging

MOST_SECONDS = 600.0
POLL_SECONDS = 2.0
BEGINNING_CHARACTERS = 240
LOG_NAME = "worker.log"


@dataclass
class DemoOutcome:
    """Events of one job."""

    source: Path
    job_id: str
    events: list[Event] = field(default_factory=list)

    @property
    def ended(self) -> CompletedEvent | FailedEvent | None:
        """Its terminal event, once it is there."""
        return next((event for event in self.events if isinstance(event, CompletedEvent | FailedEvent)), None)

    @property
    def cost(self) -> CostEvent | None:
        """Its cost event, once it is there."""
        return next((event for event in self.events if isinstance(event, CostEvent)), None)


@dataclass(frozen=True, kw_only=True)
class Order:
    """A job to publish."""

    source: Path
    method: Method = Method.AUTO


def demo(audio: Path | None, folder: Path, *, verbose: bool = False) -> None:
    """Run it. Exit 1 when a job failed."""
    sources = [audio] if audio else [sample.path for sample in samples()]
    show_log(verbose=verbose)
    play([Order(source=source) for source in sources], folder)


def show_log(*, verbose: bool) -> None:
    """Show log lines of this process on stderr, or none; the worker's go to its file."""
    configure_logging(level="info" if verbose else "off")


def play(
    orders: Sequence[Order],
    folder: Path,
    *,
    environment: Mapping[str, str] | None = None,
    before_publishing: Callable[[Path], None] = lambda _log: None,
) -> Sequence[DemoOutcome]:
    """Run the jobs, show their results and return them. Exits with 1 if one failed.

    `environment` is added to the worker's; `before_publishing` is called with the worker's log file.
    """
    started = time.monotonic()
    jobs = f"{len(orders)} job{'s' * (len(orders) != 1)}"
    out().print(f"[b]klipstream-worker demo[/]: {jobs}, tiny synthetic-English model, CPU, local servers")
    own = load_settings(_defaults()).engine
    demand_engine(own, may_do_without=may_do_without_gpu(own))
    with _local(folder) as cloud, _worker({**cloud.environment, **(environment or {})}, folder) as worker:
        asyncio.run(_upload([order.source for order in orders]))
        before_publishing(folder / LOG_NAME)
        outcomes = _submit(orders)
        _follow(outcomes, worker, folder)
        asyncio.run(_fetch(outcomes, folder))
    _report(list(outcomes.values()), folder, time.monotonic() - started)
    if not all(isinstance(outcome.ended, CompletedEvent) for outcome in outcomes.values()):
        fail("not every job completed; see worker.log")
    return list(outcomes.values())


@contextmanager
def _local(folder: Path) -> Iterator[LocalCloud]:
    folder.mkdir(parents=True, exist_ok=True)
    with local_cloud(folder / "gcs") as cloud:
        os.environ.update(cloud.environment)  # for the clients of this process; the worker inherits them
        yield cloud


def _defaults() -> dict[str, str]:
    return {
        "PARAKEET_MODEL_NAME": str(tiny_model()),
        "PARAKEET_DEVICE": "cpu",
        "HEALTH_PORT": "0",
        "PROGRESS_EVENTS": "true",
        "CHUNK_DURATION_MINUTES": "1",
        "LOG_FORMAT": "json",
    }


@contextmanager
def _worker(environment: Mapping[str, str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    effective = {**_defaults(), **os.environ, **environment}
    with (folder / LOG_NAME).open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "worker", "run"], env=effective, stderr=log)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


async def _upload(sources: Sequence[Path]) -> None:
    async with open_object_store(project=PROJECT) as store:
        for source in sources:
            media_type = mimetypes.guess_type(source.name)[0] or "application/octet-stream"
            await store.upload_file(source, ObjectRef(AUDIO_BUCKET, source.name), media_type)


def _submit(orders: Sequence[Order]) -> dict[str, DemoOutcome]:
    run = time.strftime("%H%M%S")
    outcomes = {}
    for number, order in enumerate(orders, 1):
        job_id = f"demo-{run}-{number}"
        job = {
            "job_id": job_id,
            "video_id": f"video-{number}",
            "audio_uri": f"gs://{AUDIO_BUCKET}/{order.source.name}",
            "force_method": order.method.value,
            "outputs": ["srt", "vtt"],
        }
        client.submit(job, project_id=PROJECT, topic=JOBS_TOPIC)
        outcomes[job_id] = DemoOutcome(source=order.source, job_id=job_id)
    return outcomes


def _follow(outcomes: dict[str, DemoOutcome], worker: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + MOST_SECONDS
    with DemoBars({job_id: outcome.source.name for job_id, outcome in outcomes.items()}, folder / LOG_NAME):
        while not all(outcome.ended and outcome.cost for outcome in outcomes.values()):
            if worker.poll() is not None or time.monotonic() > deadline:
                break
            for event in _next_events():
                if event.job.job_id in outcomes:
                    outcomes[event.job.job_id].events.append(event)
    if not all(outcome.ended and outcome.cost for outcome in outcomes.values()):
        fail(f"{_why_ended(folder / LOG_NAME)}; the worker's log: {folder / LOG_NAME}")


def _why_ended(log: Path) -> str:
    """Return the error that the worker printed last, in the middle of its log lines."""
    lines = log.read_text("utf-8", errors="replace").splitlines()
    errors = [line.removeprefix("error ") for line in lines if line.startswith("error ")]
    return f"the worker ended: {errors[-1]}" if errors else "the worker ended early or took too long"


def _next_events() -> Iterator[Event]:
    with client.completions(
        project_id=PROJECT, subscription=COMPLETION_SUBSCRIPTION, timeout_seconds=POLL_SECONDS
    ) as events:
        yield from events


async def _fetch(outcomes: dict[str, DemoOutcome], folder: Path) -> None:
    async with open_object_store(project=PROJECT) as store:
        for outcome in outcomes.values():
            for artefact in _artefacts(outcome):
                name = artefact.uri.removeprefix(f"gs://{OUTPUT_BUCKET}/")
                path = folder / "artefacts" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes((await store.read(ObjectRef(OUTPUT_BUCKET, name)))[0])


def _artefacts(outcome: DemoOutcome) -> list[StoredArtefact]:
    if not isinstance(outcome.ended, CompletedEvent):
        return []
    made = outcome.ended.artefacts
    return [artefact for artefact in (made.words, made.paragraphs, made.transcript, made.srt, made.vtt) if artefact]


def _report(outcomes: Sequence[DemoOutcome], folder: Path, seconds: float) -> None:
    for outcome in outcomes:
        if isinstance(outcome.ended, CompletedEvent):
            beginning, name = cell(_beginning(outcome.ended, folder)), cell(outcome.source.name)
            out().print(Panel(beginning, title=name, title_align="left"), soft_wrap=False)
    out().print("\n[b]events[/]")
    for event in sorted(
        (event for outcome in outcomes for event in outcome.events), key=lambda event: event.occurred_at
    ):
        out().print(line("  ").append_text(describe(event)))
    out().print()
    print_fitted(_costs([outcome.cost for outcome in outcomes if outcome.cost]))
    say(f"artefacts: {folder / 'artefacts'}   worker's log: {folder / LOG_NAME}   took {seconds:.0f} s")


def _beginning(event: CompletedEvent, folder: Path) -> str:
    path = folder / "artefacts" / event.artefacts.paragraphs.uri.removeprefix(f"gs://{OUTPUT_BUCKET}/")
    with path.open(newline="", encoding="utf-8") as file:
        text = " ".join(row["text"] for row in csv.DictReader(file))
    return text[:BEGINNING_CHARACTERS] + ("…" if len(text) > BEGINNING_CHARACTERS else "")


def _costs(events: Sequence[CostEvent]) -> FittedTable:
    rows = [
        (
            event.job.job_id or NOTHING,
            f"{event.audio_seconds:.1f}",
            f"{sum(getattr(engine, 'gpu_seconds', 0.0) for engine in event.engines):.2f}",
            f"{event.usd_total:.6f}",
            f"{event.baseline.usd:.6f}",
            f"{event.savings_percent:.1f} %",
        )
        for event in events
    ]
    figures = [Field(name=name, right=True) for name in ("audio s", "engine s", "USD", "Deepgram USD", "saved")]
    fields = (Field(name="job", least=12, is_id=True), *figures)
    return FittedTable(title="costs (this CPU at L4 instance prices, no GPU)", fields=fields, rows=rows)
