"""`dlq`: the dead-letter console. Looking never consumes; only `replay`, `drop` and `triage` change anything.

A listing is best effort: Pub/Sub promises no complete answer, and letters held by another reader are not seen.
"""

import os
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from rich.console import Group, RenderableType
from rich.progress import Progress
from rich.text import Text

from schemas.wire import load_object
from worker.commands.console import EXIT_FAILED, EXIT_USAGE, cell, err, fail, line, say, say_json
from worker.commands.dlq_desk import BEST_EFFORT, Desk, adopt_policy_letters, with_desk
from worker.commands.tables import NOTHING, Card, Command, Field, FittedTable, age, print_fitted
from worker.core.dead_letters.entries import DeadLetterEntry, Letter, Origin, Selection, histogram, short_ids
from worker.core.dead_letters.replay import (
    Edit,
    EditRefused,
    Refusal,
    ReplayRules,
    Republish,
    drop,
    export_line,
    facts_of,
    plan,
    planned,
    remedy_of,
    replay,
    replay_options,
)

PROGRAM = ("klipstream-worker", "dlq")
MOST_OF_A_MESSAGE = 200
FIELDS = (
    Field(name="id"),
    Field(name="job", least=12, good=20, is_id=True),
    Field(name="code", least=29),
    Field(name="reason", least=16, good=40),
    Field(name="what to do", rank=6, least=30),
    Field(name="age", right=True),
    Field(name="tries", rank=1, right=True),
    Field(name="run", rank=3, right=True),
    Field(name="video", rank=4, least=10, is_id=True),
    Field(name="copies", rank=5, right=True),
)
ORIGINS = {
    Origin.WORKER: "a worker's verdict",
    Origin.POLICY: "given up by the subscription, without a verdict of a worker: a replay gives it one first",
    Origin.STRAY: "published straight to the dead-letter topic",
    Origin.UNREADABLE: "an envelope that cannot be read",
}


@dataclass(kw_only=True)
class Tally:
    """The outcome of each letter: a line of JSON at once, or a summary for people at the end, however it ends."""

    desk: Desk
    as_json: bool
    done: int = 0
    kept: list[Refusal] = field(default_factory=list)

    def keep(self, refused: Iterable[Refusal]) -> None:
        """Count letters that stay."""
        for each in refused:
            self.count(each, "")

    def count(self, outcome: DeadLetterEntry | Republish | Refusal, what: str) -> None:
        """Count one letter."""
        if isinstance(outcome, Refusal):
            self.kept.append(outcome)
            self._line(outcome.entry, "stays", reason=outcome.reason)
            return
        self.done += 1
        if isinstance(outcome, Republish):
            self._line(outcome.entry, what, run=int(outcome.attributes["run"]))
        else:
            self._line(outcome, what)

    def end(self, what: str, summary: str) -> None:
        """Print the sums."""
        if self.as_json:
            say_json({"outcome": "summary", _word(what): self.done, "stay": len(self.kept)})
            return
        for each in self.kept:
            say(("stays", "yellow"), f" {self.desk.short(each.entry)} {each.reason}")
        say(summary)

    def _line(self, entry: DeadLetterEntry, what: str, **more: Any) -> None:
        if self.as_json:
            facts = {"dead_letter_id": entry.dead_letter_id, "job_id": entry.job_id, "code": entry.code}
            say_json({"outcome": _word(what), **facts, **more})


def show_all(selection: Selection, *, most: int, as_json: bool, by_code: bool = False) -> None:
    """Print the selected dead letters and how many there are of each code. Changes nothing."""

    async def show(desk: Desk) -> int:
        entries = desk.selected
        if as_json:
            if by_code:
                for group in _groups_of(entries, desk.now):
                    say_json(group)
            else:
                for entry in entries:
                    print(export_line(desk.holding, entry))
            return 0
        if entries and by_code:
            print_fitted(groups(entries, desk.now))
        elif entries:
            print_fitted(table(entries, desk.now), "", counts(entries))
        print_fitted(cell(f"{len(entries)} dead letter{'s' * (len(entries) != 1)}; {BEST_EFFORT}"))
        return 0

    with_desk(show, selection, most, with_messages=as_json)


def show_one(dead_letter_id: str, *, most: int, as_json: bool = False) -> None:
    """Print one dead letter as a card, or all that is known of it as JSON. Changes nothing."""

    async def show(desk: Desk) -> int:
        (entry,) = desk.selected
        letter = desk.holding.letter(entry)
        if not as_json:
            print_fitted(letter_card(entry, letter, desk.short(entry), desk.now))
            return 0
        facts = facts_of(desk.holding, entry)
        if letter.data is not None:
            facts["original"] = letter.data.decode(errors="replace")
        say_json(facts)
        return 0

    with_desk(show, Selection(ids=frozenset({dead_letter_id})), most)


def republish(selection: Selection, rules: ReplayRules, *, execute: bool, most: int, as_json: bool = False) -> None:
    """Replay the selected dead letters, or print what would be done. Exit 1 when any stays."""

    async def act(desk: Desk) -> int:
        tally = Tally(desk=desk, as_json=as_json)
        if not execute:
            _foretell(tally, planned(desk.holding, desk.selected, rules, desk.now))
            return 0
        try:
            tally.keep(await adopt_policy_letters(desk, desk.selected))
            await _republish(desk, rules, tally)
        finally:
            tally.end("replayed", f"replayed {tally.done}, {len(tally.kept)} stay")
        return len(tally.kept)

    if with_desk(act, selection, most):
        raise SystemExit(EXIT_FAILED)


def _foretell(tally: Tally, decisions: Iterable[Republish | Refusal]) -> None:
    for each in decisions:
        tally.count(each, "would replay")
        if isinstance(each, Republish) and not tally.as_json:
            what = "adopt and replay" if each.entry.origin is Origin.POLICY else "replay"
            name = f"{tally.desk.short(each.entry)} {each.entry.job_id or ''}"
            say(f"would {what} {name} as run {each.attributes['run']}")
    summary = f"dry run: {tally.done} to replay, {len(tally.kept)} to stay; add --execute to do it"
    tally.end("would replay", summary)


async def _republish(desk: Desk, rules: ReplayRules, tally: Tally) -> None:
    entries, topic = desk.adopted, desk.pubsub.topic(desk.cloud.jobs_topic)
    decisions = planned(desk.holding, entries, rules, desk.now)
    with Progress(console=err(), disable=not err().is_terminal) as bars:
        bar = bars.add_task("replaying", total=len(entries))
        done = replay(desk.holding, topic, decisions, per_second=rules.per_second, clock=desk.clock)
        async with aclosing(done) as outcomes:
            async for each in outcomes:
                bars.advance(bar)
                tally.count(each, "replayed")


def discard(selection: Selection, export: Path, *, execute: bool, most: int, as_json: bool = False) -> None:
    """Write the selected dead letters to a file of JSON lines, then remove them; or print what would be done.

    Exit 1 when any stays.
    """

    async def act(desk: Desk) -> int:
        tally = Tally(desk=desk, as_json=as_json)
        if not execute:
            for entry in desk.selected:
                tally.count(entry, "would drop")
            tally.end("would drop", f"dry run: {tally.done} to export to {export} and drop; add --execute to do it")
            return 0
        with export.open("a", encoding="utf-8") as file:
            try:
                tally.keep(await adopt_policy_letters(desk, desk.selected))
                work = drop(desk.holding, desk.adopted, lambda line: append(file, line))
                async with aclosing(work) as outcomes:
                    async for each in outcomes:
                        tally.count(each, "dropped")
            finally:
                tally.end("dropped", f"dropped {tally.done}; their messages are in {export}")
        return len(tally.kept)

    if with_desk(act, selection, most, with_messages=execute):
        raise SystemExit(EXIT_FAILED)


def parse_edits(texts: Sequence[str]) -> tuple[Edit, ...]:
    """Read `--set field=value` options; a wrong one ends the command."""
    try:
        return tuple(Edit.parse(text) for text in texts)
    except EditRefused as exc:
        fail(f"--set: {exc}", EXIT_USAGE)


def append(file: TextIO, line: str) -> None:
    """Store a line durably."""
    file.write(line + "\n")
    file.flush()
    os.fsync(file.fileno())


def _word(what: str) -> str:
    return what.replace(" ", "_")


# dead letters as people read them


def table(entries: Sequence[DeadLetterEntry], now: datetime) -> FittedTable:
    """Return the dead letters as rows."""
    short = short_ids(entries)
    rows = [
        (
            short[entry.dead_letter_id],
            entry.job_id or NOTHING,
            entry.code,
            entry.reason,
            remedy_of(entry),
            age(entry.age(now)),
            str(entry.attempts or NOTHING),
            str(entry.run),
            entry.video_id or NOTHING,
            str(len(entry.copies)) if len(entry.copies) > 1 else NOTHING,
        )
        for entry in entries
    ]
    return FittedTable(fields=FIELDS, rows=rows)


def counts(entries: Sequence[DeadLetterEntry]) -> Card:
    """Return how many letters have each code, and what to do about them."""
    remedies = {entry.code: remedy_of(entry) for entry in entries}
    return Card(facts=[(f"{count:5d}  {code}", remedies[code]) for code, count in histogram(entries).items()])


def groups(entries: Sequence[DeadLetterEntry], now: datetime) -> Group:
    """Return a card for each code: its letters, their ages, and the command that replays them."""
    shown: list[RenderableType] = []
    for group in _groups_of(entries, now):
        replay = Command((*PROGRAM, "replay", "--code", group["code"], *replay_options(group["code"])))
        ages = f"newest {age(group['newest_seconds'])}, oldest {age(group['oldest_seconds'])}"
        facts = (
            ("letters", str(group["letters"])),
            ("ages", ages),
            ("what to do", group["remedy"]),
            ("replay", replay),
        )
        shown += [line((group["code"], "bold red")), Card(facts=facts), ""]
    return Group(*shown)


def _groups_of(entries: Sequence[DeadLetterEntry], now: datetime) -> list[dict[str, Any]]:
    """Return the facts of each code's letters, the most frequent code first."""
    found = []
    for code, count in histogram(entries).items():
        ages = [entry.age(now).total_seconds() for entry in entries if entry.code == code]
        remedy = next(remedy_of(entry) for entry in entries if entry.code == code)
        facts = {"newest_seconds": round(min(ages)), "oldest_seconds": round(max(ages)), "remedy": remedy}
        found.append({"code": code, "letters": count, **facts})
    return found


def letter_card(entry: DeadLetterEntry, letter: Letter, short: str, now: datetime) -> Card:
    """Return what one letter is, why, what to do about it, and the commands that do it."""
    decision = plan(entry, letter, ReplayRules(), now)
    one, many = ("delivery", "deliveries") if entry.origin is Origin.POLICY else ("attempt", "attempts")
    tries = f"{entry.attempts} {one if entry.attempts == 1 else many}"
    if letter.crashes:
        tries += f", {letter.crashes} crash{'es' * (letter.crashes != 1)}"
    replay = _command("replay", short, *replay_options(entry.code))
    facts: list[tuple[str, str | Text | Command]] = [
        ("dead letter", entry.dead_letter_id),
        ("what", cell(entry.code, "bold red")),
        ("why", letter.message),
        *(("", violation) for violation in letter.violations),
        ("what to do", cell(remedy_of(entry), "green")),
        ("job", entry.job_id or NOTHING),
        ("video", entry.video_id or NOTHING),
        *_asked_for(letter.data),
        ("failed", f"{entry.failed_at:%Y-%m-%d %H:%M:%S} UTC, {age(entry.age(now))} ago"),
        ("first seen", f"{letter.first_seen:%Y-%m-%d %H:%M:%S} UTC" if letter.first_seen else NOTHING),
        ("worker", letter.worker or NOTHING),
        ("tries", tries if entry.attempts else NOTHING),
        ("run", str(entry.run)),
        ("copies", str(len(entry.copies)) if len(entry.copies) > 1 else NOTHING),
        ("origin", ORIGINS[entry.origin]),
        (
            "replay",
            f"stays: {decision.reason}" if isinstance(decision, Refusal) else replay,
        ),
        ("drop", _command("drop", short, "--export", "dropped.jsonl", "--execute")),
        ("all of it", _command("show", short, "--json")),
    ]
    return Card(facts=facts)


def _command(verb: str, name: str, *options: str) -> Command:
    """Return a command on one letter. A name that begins as options do is not taken for one."""
    words = (*options, "--", name) if name.startswith("-") else (name, *options)
    return Command((*PROGRAM, verb, *words))


def _asked_for(data: bytes | None) -> list[tuple[str, str]]:
    """Return what the message asked for; the beginning of one that is no job."""
    if data is None:
        return [("message", "was not kept")]
    try:
        job = load_object(data)
    except ValueError:
        return [("message", cell(data[:MOST_OF_A_MESSAGE].decode(errors="replace"), most=MOST_OF_A_MESSAGE).plain)]
    names = ("audio_uri", "force_method", "expires_at")
    return [(name.partition("_uri")[0], str(job[name])) for name in names if job.get(name)]
