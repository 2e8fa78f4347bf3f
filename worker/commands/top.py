"""`top`: one or many workers at a glance, from their health ports, until Ctrl-C; and the card that `health` prints."""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from worker.adapters.web.health_document import (
    DeepgramFacts,
    FuseFacts,
    GpuFacts,
    HealthDocument,
    RunningFacts,
    Sums,
    UrgentFacts,
    read_health,
)
from worker.commands.console import EXIT_FAILED, cell, line, out, say_json
from worker.commands.health_port import ADVICE, address_of, fetch_health, own_url
from worker.commands.tables import NOTHING, Card, Field, FittedTable, age, bar, beside_deepgram, print_fitted

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
    say_json({"workers": workers})


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


# the card of one worker, for `health`


def answer_card(page: str, document: Mapping[str, Any]) -> Card | None:
    """Return the card of an answer; None where it is not a worker's."""
    if page == "live":
        return _live(document)
    if (health := read_health(document)) is None:
        return None
    status = line((health.status, f"bold {COLOURS.get(health.status, 'red')}"), f"  {health.worker}")
    jobs = health.jobs
    facts: list[tuple[str, str | Text]] = [
        ("worker", status),
        ("why", cell(health.reason, "yellow")),
        ("jobs", f"{jobs.in_flight} of {jobs.slots} in flight" + (f", {jobs.parked} parked" if jobs.parked else "")),
        *(("", line(bar(job.audio_seconds_done, job.audio_seconds).plain, f"  {job.job_id}")) for job in jobs.running),
        ("backlog", _backlog(health)),
        *((("urgent", _urgent(health.urgent)),) if health.urgent else ()),
        ("since start", f"{age(health.uptime_seconds)}: {_sums(health)}"),
        ("last job", _last_job(health)),
        ("model", f"{health.model.name} on {health.model.device}" if health.model else NOTHING),
        *(("GPU", _gpu_facts(gpu)) for gpu in health.gpu.devices),
        ("disk", _disk(health)),
        ("Deepgram", _deepgram(health.deepgram)),
        ("fuse", _fuse(health.fuse)),
        *_tests(health),
        ("version", ", ".join(f"{name} {version}" for name, version in health.versions.items())),
    ]
    return Card(facts=facts)


def _live(document: Mapping[str, Any]) -> Card | None:
    if not isinstance(document.get("live"), bool):
        return None
    answer = cell("yes", "bold green") if document["live"] else cell("no: replace it", "bold red")
    return Card(facts=[("alive", answer), ("why", str(document.get("reason", "")))])


def _backlog(of: HealthDocument | UrgentFacts) -> str:
    if of.backlog is None:
        return NOTHING
    oldest = f", the oldest for {age(of.oldest_message_seconds)}" if of.oldest_message_seconds else ""
    return f"{of.backlog} message{'s' * (of.backlog != 1)} of {of.subscription}{oldest}"


def _urgent(urgent: UrgentFacts) -> str | Text:
    return cell(f"no pull: {urgent.pull_failure}", "yellow") if urgent.pull_failure else _backlog(urgent)


def _sums(health: HealthDocument) -> str:
    totals = health.totals
    if not totals.completed + totals.failed:
        return "no job has ended yet"
    parts = [f"{totals.completed} job{'s' * (totals.completed != 1)} done, {totals.failed} failed"]
    if totals.speed_ratio is not None:
        parts.append(f"{totals.speed_ratio:.0f}x")
    if totals.cost_usd or totals.baseline_usd:
        parts.append(f"${totals.cost_usd:.4f}")
    if totals.chunks:
        parts.append(f"fallback {_fallback(totals)}")
    return ", ".join(parts)


def _last_job(health: HealthDocument) -> str:
    if not health.last_jobs:
        return NOTHING
    job = health.last_jobs[0]
    speed = f", {job.speed_ratio:.0f}x real time" if job.speed_ratio else ""
    return f"{job.job_id or 'not a job'} {job.code or 'completed'} in {job.seconds:.1f} s{speed}"


def _gpu_facts(gpu: GpuFacts) -> str:
    busy = "" if gpu.utilisation is None else f", {100 * gpu.utilisation:.0f} % busy"
    warmth = "" if gpu.temperature_celsius is None else f", {gpu.temperature_celsius:.0f} °C"
    return f"{gpu.name}{busy}{warmth}, {gpu.memory_used_bytes / GIB:.1f} of {gpu.memory_total_bytes / GIB:.0f} GiB"


def _disk(health: HealthDocument) -> str:
    disk = health.disk
    return f"{disk.free_bytes / GIB:.1f} of {disk.total_bytes / GIB:.1f} GiB free in {disk.path}" if disk else NOTHING


def _deepgram(deepgram: DeepgramFacts) -> str | Text:
    if deepgram.down_because:
        return cell(f"down: {deepgram.down_because}", "yellow")
    if deepgram.budget_spent:
        return cell("the budget of the day is spent", "yellow")
    return "ready as the fallback" if deepgram.configured else "no key: no fallback"


def _fuse(fuse: FuseFacts | None) -> str | Text:
    return NOTHING if fuse is None or fuse.state == "closed" else cell(f"{fuse.state}: {fuse.reason}", "yellow")


def _tests(health: HealthDocument) -> Sequence[tuple[str, str | Text]]:
    """Return the parts of the self-test that failed, each with its reason, and those that passed."""
    tests = health.self_test.items()
    failed = [("self-test", cell(f"{part}: {test.reason}", "red")) for part, test in tests if test.passed is False]
    passed = ", ".join(part for part, test in tests if test.passed)
    return [*failed, ("" if failed else "self-test", f"passed: {passed}" if passed else NOTHING)]
