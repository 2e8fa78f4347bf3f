"""Dead letters as people read them: a table, groups by code, and one letter as a card."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from schemas.decoding import load_object
from worker.commands.console import cell, line
from worker.commands.tables import NOTHING, Card, Command, Field, FittedTable, age
from worker.core.dead_letters.entries import DeadLetterEntry, Letter, Origin, histogram, short_ids
from worker.core.dead_letters.remedies import remedy_of, replay_options
from worker.core.dead_letters.replay import Refusal, ReplayRules, plan

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
    for group in groups_of(entries, now):
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


def groups_of(entries: Sequence[DeadLetterEntry], now: datetime) -> list[dict[str, Any]]:
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
