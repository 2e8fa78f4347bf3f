"""`top`: one or many workers at a glance, from their health ports, until Ctrl-C."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from schemas.text import plain_json
from worker.adapters.web.health_document import HealthDocument, RunningFacts, Sums, read_health
from worker.commands.console import EXIT_FAILED, cell, out
from worker.commands.health import ADVICE, address_of, fetch_health, own_url
from worker.commands.tables import NOTHING, Field, FittedTable, bar, beside_deepgram, print_fitted

PERCENT = 100
GIB = 1024**3
COLOURS = {"healthy": "green", "loading": "yellow", "stopping": "yellow"}
WORKER_FIELDS = (
    Field(name="worker", least=12, good=24, is_id=True),
    Field(name="status", least=9),
    Field(name="jobs", right=True),
    Field(name="speed", right=True),
    Field(name="load", rank=2, right=True),
    Field(name="done", right=True),
    Field(name="failed", rank=1, right=True),
    Field(name="fallback", rank=3, right=True),
    Field(name="USD", rank=1, right=True),
    Field(name="up", rank=4, right=True),
    Field(name="parked", rank=7, right=True),
    Field(name="GPU", rank=6, least=12),
    Field(name="GPU memory", rank=5, right=True),
)
JOB_FIELDS = (
    Field(name="job", least=16, good=24, is_id=True),
    Field(name="worker", least=12, good=24, is_id=True),
    Field(name="progress"),
    Field(name="speed", right=True),
    Field(name="ETA", right=True),
    Field(name="since", rank=1, right=True),
    Field(name="audio", rank=2, right=True),
    Field(name="method", rank=3),
    Field(name="video", rank=4, least=10, is_id=True),
)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A health port and its document; None where nothing answers."""

    url: str
    document: dict[str, Any] | None

    @cached_property
    def health(self) -> HealthDocument | None:
        """The document, read; None for one that is not a worker's."""
        return read_health(self.document)

    @property
    def problem(self) -> str:
        """The reason why there is no `health`, or an empty string."""
        return "" if self.health else "no answer" if self.document is None else "not a worker's answer"


def top(urls: Sequence[str], *, interval_seconds: float, once: bool, as_json: bool = False) -> None:
    """Show the workers, again and again; without URLs the one of this environment. Exit 1 if none answers `once`.

    Where nothing can be drawn over, in a pipe or on a dumb terminal, there is one look, unless it is JSON.
    """
    console = out()
    once = once or not (as_json or (console.is_terminal and not console.is_dumb_terminal))
    addresses = [address_of(url) for url in urls] or [own_url()]
    with ThreadPoolExecutor(len(addresses), thread_name_prefix="top") as pool:

        def look() -> list[Seen]:
            answers = zip(addresses, pool.map(fetch_health, addresses), strict=True)
            return [Seen(url=url, document=document) for url, document in answers]

        if once:
            seen = look()
            _print_document(seen) if as_json else print_fitted(screen(seen))
            if all(worker.health is None for worker in seen):
                raise SystemExit(EXIT_FAILED)
            return
        try:
            if as_json:
                while True:
                    _print_document(look())
                    time.sleep(interval_seconds)
            with Live(screen(look()), console=console, screen=True, auto_refresh=False) as live:
                while True:
                    time.sleep(interval_seconds)
                    live.update(screen(look()), refresh=True)
        except KeyboardInterrupt:
            return


def screen(workers: Sequence[Seen]) -> RenderableType:
    """Everything, as one picture."""
    answering = [worker.health for worker in workers if worker.health]
    jobs = [_job(health.worker, job) for health in answering for job in health.jobs.running]
    shown: list[RenderableType] = [_summary(len(workers), answering), ""]
    shown.append(FittedTable(fields=WORKER_FIELDS, rows=[_worker(worker) for worker in workers]))
    if jobs:
        shown += ["", FittedTable(fields=JOB_FIELDS, rows=jobs)]
    troubles = [f"{health.worker}: {health.reason}" for health in answering if health.reason]
    if workers and not answering:
        troubles = [ADVICE]
    if troubles:
        shown += ["", *(cell(trouble, "yellow") for trouble in troubles)]
    return Group(*shown)


def _print_document(seen: Sequence[Seen]) -> None:
    workers = [
        {"url": worker.url, "health": worker.document if worker.health else None, "problem": worker.problem}
        for worker in seen
    ]
    print(plain_json({"workers": workers}), flush=True)


def _summary(count: int, answering: Sequence[HealthDocument]) -> Text:
    """Return the sums; those of ended jobs only once a job has ended."""
    totals = sum((health.totals for health in answering), Sums())
    ready = sum(health.status == "healthy" for health in answering)
    parts = [f"{ready} of {count} worker{'s' * (count != 1)} ready"]
    # Workers of one subscription have one backlog.
    waiting = {health.subscription: health.backlog for health in answering if health.backlog is not None}
    if waiting:
        parts.append(f"backlog {sum(waiting.values())}")
    if totals.completed or totals.failed:
        parts.append(f"{totals.completed} job{'s' * (totals.completed != 1)} done, {totals.failed} failed")
    elif answering:
        parts.append("no job has ended yet")
    if totals.audio_seconds:
        parts.append(f"{totals.audio_seconds / 3600:.1f} h of audio")
    usd, baseline = totals.cost_usd, totals.baseline_usd
    if usd or baseline:
        saved = f", {beside_deepgram(PERCENT * (1 - usd / baseline))}" if baseline else ""
        parts.append(f"${usd:.4f} so far{saved}")
    if totals.chunks:
        parts.append(f"fallback {_fallback(totals)}")
    return cell(" · ".join(parts))


def _worker(worker: Seen) -> tuple[str | Text, ...]:
    health = worker.health
    if health is None:
        return (worker.url, cell(worker.problem, "bold red"), *[""] * (len(WORKER_FIELDS) - 2))
    jobs, totals, status = health.jobs, health.totals, health.status
    gpu, load, memory = _gpu(health)
    return (
        health.worker,
        cell(status, COLOURS.get(status, "bold red")),
        f"{jobs.in_flight} of {jobs.slots}",
        _ratio(totals.speed_ratio),
        load,
        str(totals.completed),
        str(totals.failed),
        _fallback(totals),
        f"{totals.cost_usd:.4f}" if totals.completed or totals.failed else NOTHING,
        _duration(health.uptime_seconds),
        str(jobs.parked),
        gpu,
        memory,
    )


def _gpu(health: HealthDocument) -> tuple[str, str, str]:
    if not health.gpu.devices:
        return health.model.device if health.model else NOTHING, NOTHING, NOTHING
    first = health.gpu.devices[0]
    busy = NOTHING if first.utilisation is None else f"{PERCENT * first.utilisation:.0f} %"
    warmth = "" if first.temperature_celsius is None else f" {first.temperature_celsius:.0f} °C"
    return first.name, busy + warmth, f"{first.memory_used_bytes / GIB:.1f} of {health.gpu_memory_limit_gb:g} GiB"


def _job(worker: str, job: RunningFacts) -> tuple[str | Text, ...]:
    return (
        job.job_id,
        worker,
        bar(job.audio_seconds_done, job.audio_seconds),
        _ratio(job.speed_ratio),
        NOTHING if job.eta_seconds is None else _duration(job.eta_seconds),
        _duration(job.seconds),
        f"{_duration(job.audio_seconds_done)} of {_duration(job.audio_seconds)}",
        job.method or NOTHING,
        job.video_id,
    )


def _fallback(totals: Sums) -> str:
    return f"{PERCENT * totals.chunks_fallback / totals.chunks:.1f} %" if totals.chunks else NOTHING


def _ratio(speed: float | None) -> str:
    return f"{speed:.0f}x" if speed else NOTHING


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
