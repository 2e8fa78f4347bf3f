"""`dlq`: the dead-letter console. Looking never consumes; only `replay` and `drop` with `--execute` change anything.

A listing is best effort: Pub/Sub promises no complete answer, and what another console or reader holds is not seen.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, TypeAlias

from rich.highlighter import JSONHighlighter
from rich.progress import Progress
from rich.table import Column, Table

from schemas.text import plain_json
from worker.adapters.machine.clock import SystemClock
from worker.adapters.pubsub.pubsub import CallTimeouts, PubSub, open_pubsub
from worker.commands.console import EXIT_FAILED, EXIT_USAGE, cell, fail, load_settings, note, out, say
from worker.core.dead_letters.adoption import adopted
from worker.core.dead_letters.entries import DeadLetterEntry, Origin, Selection, forwarded, histogram
from worker.core.dead_letters.hold import Holding, HoldLimits, hold_dead_letters
from worker.core.dead_letters.replay import (
    Edit,
    EditRefused,
    Refusal,
    ReplayRules,
    Republish,
    drop,
    export_line,
    facts_of,
    planned,
    replay,
)
from worker.settings import CloudSettings, EngineSettings, JobSettings, MoneySettings, RoutingSettings
from worker.telemetry import configure_logging

if TYPE_CHECKING:
    from worker.core.jobs.attempt import Jobs

_OpenJobs: TypeAlias = Callable[[PubSub], AbstractAsyncContextManager["Jobs"]]

# Three empty answers end a listing; each is waited for this long.
PULL_SECONDS = 2.0
# Larger letters are for files and pipes.
MOST_IN_COLOUR = 100_000
BEST_EFFORT = "best effort: what another reader holds at this moment is not seen"
NOT_TRIED = "not adopted: one before it failed for a reason that concerns all"


def show_all(selection: Selection, *, most: int, as_json: bool) -> None:
    """Print the selected dead letters and how many there are of each code. Changes nothing."""

    async def show(console: _Console) -> int:
        entries = console.selected
        if as_json:
            for entry in entries:
                print(export_line(console.holding, entry))
            return 0
        out().print(table(entries, console.now))
        for code, count in histogram(entries).items():
            say(f"{count:6d}  {code}")
        say(f"{len(entries)} dead letter(s); {BEST_EFFORT}")
        return 0

    _with_console(show, selection, most, with_messages=as_json)


def show_one(dead_letter_id: str, *, most: int) -> None:
    """Print everything known of one dead letter. Changes nothing."""

    async def show(console: _Console) -> int:
        if not (found := console.selected):
            fail(f"no dead letter {dead_letter_id}; {BEST_EFFORT}")
        facts = facts_of(console.holding, found[0])
        if (data := console.holding.letter(found[0]).data) is not None:
            facts["original"] = data.decode(errors="replace")
        text = plain_json(facts, indent=2)
        if len(text) < MOST_IN_COLOUR:
            out().print(JSONHighlighter()(text))
        else:
            print(text)
        return 0

    _with_console(show, Selection(ids=frozenset({dead_letter_id})), most)


def republish(selection: Selection, rules: ReplayRules, *, execute: bool, most: int) -> None:
    """Replay the selected dead letters, or say what would be done. Exit 1 when any stays."""

    async def act(console: _Console) -> int:
        if not execute:
            return _foretell(planned(console.holding, console.selected, rules, console.now))
        tally = _Tally()
        try:
            tally.kept += await _adopt_forwarded(console)
            await _republish(console, rules, tally)
        finally:
            tally.tell(f"replayed {tally.done}, {len(tally.kept)} stay")
        return len(tally.kept)

    if _with_console(act, selection, most):
        raise SystemExit(EXIT_FAILED)


def discard(selection: Selection, export: Path, *, execute: bool, most: int) -> None:
    """Write the selected dead letters to a file of JSON lines, then remove them; or say what would be done.

    Exit 1 when any stays.
    """

    async def act(console: _Console) -> int:
        if not execute:
            count = len(console.selected)
            say(f"dry run: {count} to export to {export} and drop; add --execute to do it")
            return 0
        tally = _Tally()
        with export.open("a", encoding="utf-8") as file:
            try:
                tally.kept += await _adopt_forwarded(console)
                work = drop(console.holding, console.adopted, lambda line: _append(file, line))
                async with aclosing(work) as outcomes:
                    async for each in outcomes:
                        tally.count(each)
            finally:
                tally.tell(f"dropped {tally.done}; their messages are in {export}")
        return len(tally.kept)

    if _with_console(act, selection, most, with_messages=execute):
        raise SystemExit(EXIT_FAILED)


def parse_edits(texts: Sequence[str]) -> tuple[Edit, ...]:
    """Read `--set field=value` options; a wrong one ends the command."""
    try:
        return tuple(Edit.parse(text) for text in texts)
    except EditRefused as exc:
        fail(f"--set: {exc}", EXIT_USAGE)


def table(entries: Sequence[DeadLetterEntry], now: datetime) -> Table:
    """Return the dead letters as rows."""
    found = Table(
        Column("id", no_wrap=True), "job", "video", "run", Column("code", no_wrap=True), "tries", "age", "copies"
    )
    for entry in entries:
        age = str(entry.age(now)).split(".", maxsplit=1)[0]
        row = (entry.dead_letter_id, entry.job_id or "", entry.video_id or "", entry.run, entry.code, entry.attempts)
        found.add_row(*map(cell, (*row, age, len(entry.copies))))
    return found


@dataclass(kw_only=True)
class _Tally:
    """The outcome of the letters of a run; printed at its end, however it ends."""

    done: int = 0
    kept: list[Refusal] = field(default_factory=list)

    def count(self, outcome: DeadLetterEntry | Republish | Refusal) -> None:
        if isinstance(outcome, Refusal):
            self.kept.append(outcome)
        else:
            self.done += 1

    def tell(self, sum_up: str) -> None:
        _tell_kept(self.kept)
        say(sum_up)


@dataclass(frozen=True, kw_only=True)
class _Console:
    pubsub: PubSub
    cloud: CloudSettings
    jobs: JobSettings
    open_jobs: "_OpenJobs"
    selection: Selection
    holding: Holding
    clock: SystemClock

    @property
    def now(self) -> datetime:
        return self.clock.now()

    @property
    def selected(self) -> list[DeadLetterEntry]:
        now = self.now
        return [entry for entry in self.holding.entries if self.selection.matches(entry, now)]

    @property
    def adopted(self) -> list[DeadLetterEntry]:
        """Those selected whose jobs have had their last events."""
        return [entry for entry in self.selected if entry.origin is not Origin.POLICY]


def _with_console(
    act: Callable[[_Console], Awaitable[int]], selection: Selection, most: int, *, with_messages: bool = True
) -> int:
    settings = load_settings()
    configure_logging(settings.telemetry.log_format, settings.telemetry.log_level)
    open_jobs = partial(_jobs, settings.cloud, settings.engine, settings.money, settings.routing, settings.jobs)
    opened = _open(settings.cloud, settings.jobs, open_jobs, selection, most, with_messages=with_messages)
    return asyncio.run(_run(opened, act))


async def _run(opening: AbstractAsyncContextManager[_Console], act: Callable[[_Console], Awaitable[int]]) -> int:
    async with opening as console:
        if full := console.holding.full_of:
            note(f"{full}: there may be more; what is done here makes room for them")
        return await act(console)


@asynccontextmanager
async def _open(
    cloud: CloudSettings,
    jobs: JobSettings,
    open_jobs: "_OpenJobs",
    selection: Selection,
    most: int,
    *,
    with_messages: bool,
) -> AsyncIterator[_Console]:
    clock = SystemClock()
    host, timeouts = cloud.pubsub_emulator_host, CallTimeouts(pull=PULL_SECONDS)
    async with open_pubsub(cloud.project_id, emulator_host=host, timeouts=timeouts) as pubsub:
        subscription = pubsub.subscription(cloud.dead_letter_subscription)
        holding = hold_dead_letters(
            subscription,
            lease_seconds=(await subscription.facts()).ack_deadline_seconds,
            limits=HoldLimits(messages=most, folder=jobs.temp_dir),
            clock=clock,
            wanted=lambda entry: with_messages and selection.matches(entry, clock.now()),
        )
        async with holding as held:
            yield _Console(
                pubsub=pubsub,
                cloud=cloud,
                jobs=jobs,
                open_jobs=open_jobs,
                selection=selection,
                holding=held,
                clock=clock,
            )


async def _adopt_forwarded(console: _Console) -> list[Refusal]:
    """Give the selected jobs that the subscription's policy gave up on their last events.

    Their envelopes are held afterwards. Returns those that could not be adopted.
    """
    entries = {entry.dead_letter_id: entry for entry in console.selected if entry.origin is Origin.POLICY}
    if not entries:
        return []
    from worker.app.worker import adopt_forwarded, adoption_patience_seconds  # noqa: PLC0415  nearly all of the worker

    patience = adoption_patience_seconds(console.jobs)
    kept, done = dict[str, Refusal](), set[str]()
    async with console.open_jobs(console.pubsub) as jobs:

        async def adopt(entry: DeadLetterEntry) -> None:
            await adopt_forwarded(jobs, forwarded(next(console.holding.messages(entry))))
            await console.holding.settle(entry)

        def on_wait(count: int) -> None:
            note(f"{count} job(s) seem to be held by a worker: looking again in {patience:.0f} s")

        outcomes = adopted([*entries.values()], adopt, patience_seconds=patience, clock=console.clock, on_wait=on_wait)
        async for entry, error in outcomes:
            if error is None:
                done.add(entry.dead_letter_id)
            else:
                kept[entry.dead_letter_id] = Refusal(entry=entry, reason=f"not adopted: {error}")
    await console.holding.gather(lambda: done <= {entry.dead_letter_id for entry in console.holding.entries})
    rest = [Refusal(entry=entries[each], reason=NOT_TRIED) for each in entries.keys() - kept.keys() - done]
    return [*kept.values(), *rest]


@asynccontextmanager
async def _jobs(
    names: CloudSettings,
    engine: EngineSettings,
    money: MoneySettings,
    routing: RoutingSettings,
    settings: JobSettings,
    pubsub: PubSub,
) -> "AsyncIterator[Jobs]":
    """Nearly all of the worker, which looking at dead letters does not need."""
    from worker.adapters.gcs import open_object_store  # noqa: PLC0415
    from worker.app.cloud import Cloud  # noqa: PLC0415
    from worker.app.decoder import make_decoder  # noqa: PLC0415
    from worker.app.engines import engines_of  # noqa: PLC0415
    from worker.app.recogniser import NoEngine  # noqa: PLC0415
    from worker.app.worker import make_jobs, routing_policy  # noqa: PLC0415

    async with open_object_store(project=names.project_id) as store:
        cloud = Cloud(pubsub=pubsub, store=store, names=names)
        engines = engines_of(engine, money, NoEngine("this command does not transcribe"), None)
        decoder, policy = make_decoder(settings, engine), routing_policy(routing, engine)
        yield make_jobs(cloud, engines, decoder, policy, settings, settings.temp_dir)


def _foretell(decisions: Iterable[Republish | Refusal]) -> int:
    ready, refused = 0, list[Refusal]()
    for each in decisions:
        if isinstance(each, Refusal):
            refused.append(each)
            continue
        ready += 1
        what = "adopt and replay" if each.entry.origin is Origin.POLICY else "replay"
        say(f"would {what} {each.entry.dead_letter_id} {each.entry.job_id or ''} as run {each.attributes['run']}")
    _tell_kept(refused)
    say(f"dry run: {ready} to replay, {len(refused)} to stay; add --execute to do it")
    return 0


async def _republish(console: _Console, rules: ReplayRules, tally: _Tally) -> None:
    entries, topic = console.adopted, console.pubsub.topic(console.cloud.jobs_topic)
    decisions = planned(console.holding, entries, rules, console.now)
    with Progress(console=out()) as bars:
        bar = bars.add_task("replaying", total=len(entries))
        done = replay(console.holding, topic, decisions, per_second=rules.per_second, clock=console.clock)
        async with aclosing(done) as outcomes:
            async for each in outcomes:
                bars.advance(bar)
                tally.count(each)


def _tell_kept(refused: Iterable[Refusal]) -> None:
    for each in refused:
        say(("stays", "yellow"), f" {each.entry.dead_letter_id} {each.reason}")


def _append(file: TextIO, line: str) -> None:
    file.write(line + "\n")
    file.flush()
    os.fsync(file.fileno())
