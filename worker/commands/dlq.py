"""`dlq`: the dead-letter console. Looking never consumes; only `replay` and `drop` with `--execute` change anything.

A listing is best effort: Pub/Sub promises no complete answer, and what another console or reader holds is not seen.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from rich.markup import escape
from rich.progress import Progress
from rich.table import Column, Table

from worker.adapters.clock import SystemClock
from worker.adapters.pubsub import Patience, PubSub, open_pubsub
from worker.commands.console import EXIT_FAILED, EXIT_USAGE, fail, load_settings, out
from worker.core.delivery.dead_letters import Entry, Origin, Selection, histogram
from worker.core.delivery.holding import Holding, hold_dead_letters
from worker.core.delivery.replay import Edit, EditRefused, Refusal, Republish, drop, export_line, plan, replay
from worker.errors import Deferred, WorkerError
from worker.settings import Settings
from worker.telemetry import configure_logging

if TYPE_CHECKING:
    from worker.core.jobs.handler import Jobs

# Three empty answers end a listing; each is waited for this long.
PULL_SECONDS = 2.0
BEST_EFFORT = "best effort: what another reader holds at this moment is not seen"


@dataclass(frozen=True, kw_only=True)
class ReplayOptions:
    """How to replay. Nothing is published without `execute`."""

    edits: tuple[Edit, ...]
    per_second: float
    limit: int
    max_replays: int
    execute: bool


def show_all(selection: Selection, *, most: int, as_json: bool) -> None:
    """Print the selected dead letters and how many there are of each code."""

    async def show(console: _Console) -> int:
        entries = console.select(selection)
        if as_json:
            for entry in entries:
                print(export_line(entry))
            return 0
        out().print(_table(entries, console.now))
        for code, count in histogram(entries).items():
            out().print(f"{count:6d}  {code}")
        out().print(f"{len(entries)} dead letter(s); {BEST_EFFORT}")
        return 0

    _with_console(show, most)


def show_one(dead_letter_id: str, *, most: int) -> None:
    """Print everything known of one dead letter."""

    async def show(console: _Console) -> int:
        found = console.select(Selection(ids=frozenset({dead_letter_id})))
        if not found:
            fail(f"no dead letter {escape(dead_letter_id)}; {BEST_EFFORT}")
        facts = json.loads(export_line(found[0]))
        if found[0].data is not None:
            facts["original"] = found[0].data.decode(errors="replace")
        out().print_json(json.dumps(facts))
        return 0

    _with_console(show, most)


def republish(selection: Selection, options: ReplayOptions, *, most: int) -> None:
    """Replay the selected dead letters, or say what would be done. Exit 1 when any was refused."""

    async def act(console: _Console) -> int:
        plans = [
            plan(entry, options.edits, max_replays=options.max_replays, now=console.now)
            for entry in console.select(selection)
        ]
        refusals = [each for each in plans if isinstance(each, Refusal)]
        ready = [each for each in plans if isinstance(each, Republish)][: options.limit]
        for refusal in refusals:
            out().print(f"[yellow]stays[/] {refusal.entry.dead_letter_id} {escape(refusal.reason)}")
        if not options.execute:
            for each in ready:
                run = each.attributes["run"]
                out().print(f"would replay {each.entry.dead_letter_id} {escape(each.entry.job_id or '')} as run {run}")
            out().print(f"dry run: {len(ready)} to replay, {len(refusals)} to stay; add --execute to do it")
            return 0
        await _republish(console, ready, options.per_second)
        return len(refusals)

    if _with_console(act, most):
        raise SystemExit(EXIT_FAILED)


def discard(selection: Selection, export: Path, *, execute: bool, most: int) -> None:
    """Write the selected dead letters to a file of JSON lines, then remove them; or say what would be done."""

    async def act(console: _Console) -> int:
        entries = console.select(selection)
        if not execute:
            out().print(f"dry run: {len(entries)} to export to {escape(str(export))} and drop; add --execute to do it")
            return 0
        with export.open("a", encoding="utf-8") as file:
            async with aclosing(drop(console.holding, entries, lambda line: _append(file, line))) as dropped:
                count = len([entry async for entry in dropped])
        out().print(f"dropped {count}; their messages are in {escape(str(export))}")
        return 0

    _with_console(act, most)


def parse_edits(texts: Sequence[str]) -> tuple[Edit, ...]:
    """Read `--set field=value` options; a wrong one ends the command."""
    try:
        return tuple(Edit.parse(text) for text in texts)
    except EditRefused as exc:
        fail(f"--set: {escape(str(exc))}", EXIT_USAGE)


@dataclass(frozen=True, kw_only=True)
class _Console:
    pubsub: PubSub
    settings: Settings
    holding: Holding
    clock: SystemClock

    @property
    def now(self) -> datetime:
        return self.clock.now()

    def select(self, selection: Selection) -> list[Entry]:
        now = self.now
        return [entry for entry in self.holding.entries if selection.matches(entry, now)]


def _with_console(act: Callable[[_Console], Awaitable[int]], most: int) -> int:
    settings = load_settings()
    configure_logging(settings.log_format)
    try:
        return asyncio.run(_run(settings, act, most))
    except WorkerError as exc:
        fail(escape(f"{exc}: {exc.suggested_action}"))


async def _run(settings: Settings, act: Callable[[_Console], Awaitable[int]], most: int) -> int:
    async with _open(settings, most) as console:
        await _adopt_forwarded(console)
        return await act(console)


@asynccontextmanager
async def _open(settings: Settings, most: int) -> AsyncIterator[_Console]:
    clock = SystemClock()
    host, patience = settings.pubsub_emulator_host, Patience(pull=PULL_SECONDS)
    async with open_pubsub(settings.project_id, emulator_host=host, patience=patience) as pubsub:
        subscription = pubsub.subscription(settings.dead_letter_subscription)
        lease_seconds = (await subscription.facts()).ack_deadline_seconds
        async with hold_dead_letters(subscription, lease_seconds=lease_seconds, most=most, clock=clock) as holding:
            yield _Console(pubsub=pubsub, settings=settings, holding=holding, clock=clock)


async def _adopt_forwarded(console: _Console) -> None:
    """What the subscription's policy forwarded got no terminal event from any worker: it gets one now."""
    forwarded = [entry for entry in console.holding.entries if entry.origin is Origin.POLICY]
    if not forwarded:
        return
    async with _jobs(console) as jobs:
        for entry in forwarded:
            try:
                await jobs.attempt(replace(entry.copies[0], attributes=entry.attributes)).adopt(entry.attempts)
            except Deferred as exc:
                out().print(f"[yellow]left alone[/] {entry.dead_letter_id}: {escape(str(exc))}")
                continue
            await console.holding.settle(entry)
    await console.holding.gather(len(forwarded))


@asynccontextmanager
async def _jobs(console: _Console) -> "AsyncIterator[Jobs]":
    """Nearly all of the worker, which looking at dead letters does not need."""
    from worker.adapters.gcs import open_object_store  # noqa: PLC0415
    from worker.app import make_jobs  # noqa: PLC0415
    from worker.cloud import Cloud  # noqa: PLC0415
    from worker.engines import NoEngine, engines_of  # noqa: PLC0415

    settings = console.settings
    async with open_object_store(project=settings.project_id) as store:
        cloud = Cloud(pubsub=console.pubsub, store=store)
        engines = engines_of(settings, NoEngine("this command does not transcribe"), None)
        yield make_jobs(settings, cloud, engines, settings.temp_dir)


async def _republish(console: _Console, plans: Sequence[Republish], per_second: float) -> None:
    topic = console.pubsub.topic(console.settings.jobs_topic)
    with Progress(console=out()) as bars:
        bar = bars.add_task("replaying", total=len(plans))
        done = replay(console.holding, topic, plans, per_second=per_second, clock=console.clock)
        async with aclosing(done) as replayed:
            async for _ in replayed:
                bars.advance(bar)
    out().print(f"replayed {len(plans)}")


def _append(file: TextIO, line: str) -> None:
    file.write(line + "\n")
    file.flush()
    os.fsync(file.fileno())


def _table(entries: Sequence[Entry], now: datetime) -> Table:
    table = Table(
        Column("id", no_wrap=True), "job", "video", "run", Column("code", no_wrap=True), "tries", "age", "copies"
    )
    for entry in entries:
        age = str(entry.age(now)).split(".", maxsplit=1)[0]
        row = (entry.dead_letter_id, entry.job_id or "", entry.video_id or "", str(entry.run), entry.code)
        table.add_row(*map(escape, row), str(entry.attempts), age, str(len(entry.copies)))
    return table
