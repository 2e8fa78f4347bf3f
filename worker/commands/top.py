"""`top`: one or many workers at a glance, from their health ports, until Ctrl-C."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from worker.commands.console import cell, line, out
from worker.commands.health import fetch_health, own_url

PERCENT = 100
GIB = 1024**3
COLOURS = {"healthy": "green", "loading": "yellow", "stopping": "yellow"}
NOTHING = "-"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A worker and what its `/health` says; None where nothing answers."""

    url: str
    health: dict[str, Any] | None
    problem: str = "no answer"
    """Why there is no `health`."""


def top(urls: Sequence[str], *, interval_seconds: float, once: bool) -> None:
    """Show the workers, again and again; without URLs the one of this environment."""
    addresses = list(urls) or [own_url()]
    with ThreadPoolExecutor(len(addresses), thread_name_prefix="top") as pool:

        def look() -> list[Seen]:
            answers = zip(addresses, pool.map(fetch_health, addresses), strict=True)
            return [understood(Seen(url=url, health=found)) for url, found in answers]

        if once:
            out().print(screen(look()), soft_wrap=False)
            return
        try:
            with Live(screen(look()), console=out(), screen=True, auto_refresh=False) as live:
                while True:
                    time.sleep(interval_seconds)
                    live.update(screen(look()), refresh=True)
        except KeyboardInterrupt:
            return


def understood(worker: Seen) -> Seen:
    """Return the worker as it is shown; what answers may be none of ours, or of another version."""
    try:
        screen([worker])
    except (AttributeError, KeyError, TypeError, ValueError):
        return Seen(url=worker.url, health=None, problem="not a worker's answer")
    return worker


def screen(workers: Sequence[Seen]) -> RenderableType:
    """Everything, as one picture."""
    answering = [worker.health for worker in workers if worker.health is not None]
    return Group(_summary(len(workers), answering), _workers(workers), _jobs(answering), *_troubles(workers))


def _summary(count: int, answering: Sequence[dict[str, Any]]) -> Text:
    totals = [health["totals"] for health in answering]
    done, failed = _sum(totals, "completed"), _sum(totals, "failed")
    audio, usd, baseline = (_sum(totals, name) for name in ("audio_seconds", "cost_usd", "baseline_usd"))
    ready = sum(health["status"] == "healthy" for health in answering)
    saved = f", {PERCENT * (1 - usd / baseline):.1f} % below Deepgram" if baseline else ""
    # Workers of one subscription have one backlog.
    waiting = {health["subscription"]: health["backlog"] for health in answering if health["backlog"] is not None}
    return cell(
        f"{ready} of {count} workers ready   {done:.0f} jobs done, {failed:.0f} failed   "
        f"{audio / 3600:.1f} h of audio   ${usd:.4f} so far{saved}   "
        f"fallback {_share(_sum(totals, 'chunks_fallback'), _sum(totals, 'chunks'))}   "
        f"backlog {sum(waiting.values()) if waiting else NOTHING}"
    )


def _workers(workers: Sequence[Seen]) -> Table:
    table = Table(
        "worker", "status", "up", "jobs", "parked", "speed", "GPU", "GPU memory", "fallback", "done", "failed", "USD",
        expand=True,
    )  # fmt: skip
    for worker in workers:
        table.add_row(*(_row(worker.health) if worker.health else (cell(worker.url), cell(worker.problem, "bold red"))))
    return table


def _row(health: dict[str, Any]) -> tuple[RenderableType, ...]:
    jobs, totals, status = health["jobs"], health["totals"], health["status"]
    return (
        cell(health["worker"]),
        cell(status, COLOURS.get(status, "bold red")),
        _duration(health["uptime_seconds"]),
        cell(f"{jobs['in_flight']} of {jobs['in_flight'] + jobs['free_slots']}"),
        cell(jobs["parked"]),
        _ratio(totals["audio_seconds"], totals["processing_seconds"]),
        *_gpu(health),
        _share(totals["chunks_fallback"], totals["chunks"]),
        cell(totals["completed"]),
        cell(totals["failed"]),
        f"{totals['cost_usd']:.4f}",
    )


def _gpu(health: dict[str, Any]) -> tuple[Text, Text]:
    devices = health["gpu"]["devices"]
    if not devices:
        return cell((health["model"] or {}).get("device", NOTHING)), cell(NOTHING)
    first = devices[0]
    told = NOTHING if first["utilisation"] is None else f"{PERCENT * first['utilisation']:.0f} %"
    warmth = "" if first["temperature_celsius"] is None else f" {first['temperature_celsius']:.0f} °C"
    used, limit = first["memory_used_bytes"] / GIB, health["gpu_memory_limit_gb"]
    return cell(f"{first['name']} {told}{warmth}"), cell(f"{used:.1f} of {limit:g} GiB")


def _jobs(answering: Sequence[dict[str, Any]]) -> Table:
    table = Table("job", "video", "method", "since", "progress", "audio", "speed", expand=True, title="jobs")
    for health in answering:
        for job in health["jobs"]["running"]:
            table.add_row(
                cell(job["job_id"]),
                cell(job["video_id"]),
                cell(job["method"] or NOTHING),
                _duration(job["seconds"]),
                ProgressBar(total=job["audio_seconds"] or 1.0, completed=job["audio_seconds_done"], width=24),
                f"{_duration(job['audio_seconds_done'])} of {_duration(job['audio_seconds'])}",
                _ratio(job["audio_seconds_done"], job["seconds"]),
            )
    return table


def _troubles(workers: Sequence[Seen]) -> list[Text]:
    told = [worker.health for worker in workers if worker.health and worker.health["reason"]]
    return [line((f"{health['worker']}: {health['reason']}", "yellow")) for health in told]


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
