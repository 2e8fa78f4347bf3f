"""`top`: one or many workers at a glance, from their health ports, until Ctrl-C."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from schemas.text import plain_json
from worker.commands.console import EXIT_FAILED, cell, line, out
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
    """A worker and its `/health`; None where nothing answers."""

    url: str
    health: dict[str, Any] | None
    problem: str = "no answer"
    """Why there is no `health`."""


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
            return [understood(Seen(url=url, health=found)) for url, found in answers]

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


def understood(worker: Seen) -> Seen:
    """Return the worker as it is shown; what answers may be none of ours, or of another version."""
    try:
        screen([worker])
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError):
        return Seen(url=worker.url, health=None, problem="not a worker's answer")
    return worker


def screen(workers: Sequence[Seen]) -> RenderableType:
    """Everything, as one picture."""
    answering = [worker.health for worker in workers if worker.health is not None]
    jobs = [_job(health, job) for health in answering for job in health["jobs"]["running"]]
    shown: list[RenderableType] = [_summary(len(workers), answering), ""]
    shown.append(FittedTable(fields=WORKER_FIELDS, rows=[_worker(worker) for worker in workers]))
    if jobs:
        shown += ["", FittedTable(fields=JOB_FIELDS, rows=jobs)]
    if troubles := _troubles(workers):
        shown += ["", *troubles]
    return Group(*shown)


def _print_document(seen: Sequence[Seen]) -> None:
    workers = [{**asdict(worker), "problem": "" if worker.health else worker.problem} for worker in seen]
    print(plain_json({"workers": workers}), flush=True)


def _summary(count: int, answering: Sequence[dict[str, Any]]) -> Text:
    """Return the sums; those of ended jobs only once a job has ended."""
    totals = [health["totals"] for health in answering]
    done, failed = _sum(totals, "completed"), _sum(totals, "failed")
    audio, usd, baseline = (_sum(totals, name) for name in ("audio_seconds", "cost_usd", "baseline_usd"))
    ready = sum(health["status"] == "healthy" for health in answering)
    parts = [f"{ready} of {count} worker{'s' * (count != 1)} ready"]
    # Workers of one subscription have one backlog.
    waiting = {health["subscription"]: health["backlog"] for health in answering if health["backlog"] is not None}
    if waiting:
        parts.append(f"backlog {sum(waiting.values())}")
    if done or failed:
        parts.append(f"{done:.0f} job{'s' * (done != 1)} done, {failed:.0f} failed")
    elif answering:
        parts.append("no job has ended yet")
    if audio:
        parts.append(f"{audio / 3600:.1f} h of audio")
    if usd or baseline:
        saved = f", {beside_deepgram(PERCENT * (1 - usd / baseline))}" if baseline else ""
        parts.append(f"${usd:.4f} so far{saved}")
    if _sum(totals, "chunks"):
        parts.append(f"fallback {_share(_sum(totals, 'chunks_fallback'), _sum(totals, 'chunks'))}")
    return cell(" · ".join(parts))


def _worker(worker: Seen) -> tuple[str | Text, ...]:
    health = worker.health
    if health is None:
        return (worker.url, cell(worker.problem, "bold red"), *[""] * (len(WORKER_FIELDS) - 2))
    jobs, totals, status = health["jobs"], health["totals"], health["status"]
    ended = totals["completed"] + totals["failed"]
    gpu, load, memory = _gpu(health)
    return (
        cell(health["worker"]),
        cell(status, COLOURS.get(status, "bold red")),
        f"{jobs['in_flight']} of {jobs['in_flight'] + jobs['free_slots']}",
        _ratio(totals["audio_seconds"], totals["processing_seconds"]),
        load,
        cell(totals["completed"]),
        cell(totals["failed"]),
        _share(totals["chunks_fallback"], totals["chunks"]),
        f"{totals['cost_usd']:.4f}" if ended else NOTHING,
        _duration(health["uptime_seconds"]),
        cell(jobs["parked"]),
        gpu,
        memory,
    )


def _gpu(health: dict[str, Any]) -> tuple[str | Text, str, str]:
    devices = health["gpu"]["devices"]
    if not devices:
        return cell((health["model"] or {}).get("device", NOTHING)), NOTHING, NOTHING
    first = devices[0]
    busy = NOTHING if first["utilisation"] is None else f"{PERCENT * first['utilisation']:.0f} %"
    warmth = "" if first["temperature_celsius"] is None else f" {first['temperature_celsius']:.0f} °C"
    used, limit = first["memory_used_bytes"] / GIB, health["gpu_memory_limit_gb"]
    return cell(first["name"]), busy + warmth, f"{used:.1f} of {limit:g} GiB"


def _job(health: dict[str, Any], job: dict[str, Any]) -> tuple[str | Text, ...]:
    done, whole, seconds = job["audio_seconds_done"], job["audio_seconds"], job["seconds"]
    left = max(0.0, whole - done) * seconds / done if whole and done else None
    return (
        cell(job["job_id"]),
        cell(health["worker"]),
        bar(done, whole),
        _ratio(done, seconds),
        NOTHING if left is None else _duration(left),
        _duration(seconds),
        f"{_duration(done)} of {_duration(whole)}",
        cell(job["method"] or NOTHING),
        cell(job["video_id"]),
    )


def _troubles(workers: Sequence[Seen]) -> list[Text]:
    silent = [line((ADVICE, "yellow"))] if workers and not any(worker.health for worker in workers) else []
    troubled = [worker.health for worker in workers if worker.health and worker.health["reason"]]
    return [*silent, *(line((f"{health['worker']}: {health['reason']}", "yellow")) for health in troubled)]


def _sum(totals: Sequence[dict[str, float]], name: str) -> float:
    return sum(each[name] for each in totals)


def _share(part: float, whole: float) -> str:
    return f"{PERCENT * part / whole:.1f} %" if whole else NOTHING


def _ratio(audio_seconds: float, seconds: float) -> str:
    return f"{audio_seconds / seconds:.0f}x" if seconds and audio_seconds else NOTHING


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
