"""A worker's `/health` and `/live` for people: a card."""

import json
from collections.abc import Sequence
from typing import Any

from rich.text import Text

from worker.adapters.web.health_document import (
    DeepgramFacts,
    FuseFacts,
    GpuFacts,
    HealthDocument,
    UrgentFacts,
    read_health,
)
from worker.commands.console import cell, line
from worker.commands.tables import NOTHING, Card, age, bar

GIB = 1024**3
COLOURS = {"healthy": "bold green", "loading": "bold yellow", "stopping": "bold yellow"}


def shown(page: str, body: bytes) -> Card | None:
    """Return the card of an answer; None where it is not a worker's."""
    try:
        document = json.loads(body)
    except ValueError:
        return None
    if page == "live":
        return _live(document)
    if (health := read_health(document)) is None:
        return None
    status = line((health.status, COLOURS.get(health.status, "bold red")), f"  {health.worker}")
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
        *(("GPU", _gpu(gpu)) for gpu in health.gpu.devices),
        ("disk", _disk(health)),
        ("Deepgram", _deepgram(health.deepgram)),
        ("fuse", _fuse(health.fuse)),
        *_tests(health),
        ("version", ", ".join(f"{name} {version}" for name, version in health.versions.items())),
    ]
    return Card(facts=facts)


def _live(document: Any) -> Card | None:
    if not isinstance(document, dict) or not isinstance(document.get("live"), bool):
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
        parts.append(f"fallback {100 * totals.chunks_fallback / totals.chunks:.1f} %")
    return ", ".join(parts)


def _last_job(health: HealthDocument) -> str:
    if not health.last_jobs:
        return NOTHING
    job = health.last_jobs[0]
    speed = f", {job.speed_ratio:.0f}x real time" if job.speed_ratio else ""
    return f"{job.job_id or 'not a job'} {job.code or 'completed'} in {job.seconds:.1f} s{speed}"


def _gpu(gpu: GpuFacts) -> str:
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
