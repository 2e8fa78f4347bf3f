"""`dlq triage`: dead letters one after the other, each replayed, edited, dropped or skipped on a key."""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias

from worker.commands.console import EXIT_USAGE, fail, out, say
from worker.commands.dlq import append, letter_card
from worker.commands.dlq_desk import Desk, adopt_policy_letters, with_desk
from worker.commands.tables import print_fitted
from worker.core.dead_letters.entries import DeadLetterEntry, Selection
from worker.core.dead_letters.replay import Edit, EditRefused, Refusal, ReplayRules, Republish, drop, plan, replay

Ask: TypeAlias = Callable[[str], Awaitable[str]]
"""Prints a prompt and returns the answer, which is empty at the end of the input."""
Outcome: TypeAlias = Literal["replayed", "dropped", "skipped"]

MOST_OF_AN_ANSWER = 65_536
CHOICES = "[r]eplay  [e]dit  [d]rop  [s]kip  [q]uit > "
FIELD = "field=value, such as force_method=deepgram; an empty line ends > "


def triage(selection: Selection, export: Path, *, max_replays: int, most: int, ask: Ask | None = None) -> None:
    """Show each selected letter and do what the operator answers.

    Ctrl-C ends it between letters: one that was begun is finished, all others are released untouched.
    """
    if ask is None and not sys.stdin.isatty():
        fail("triage asks on a terminal; without one use dlq replay and dlq drop, which do the same", EXIT_USAGE)

    async def act(desk: Desk) -> int:
        rules = ReplayRules(max_replays=max_replays)
        await Triage(desk=desk, rules=rules, export=export, ask=ask or ask_on_terminal).go_through(desk.selected)
        return 0

    with_desk(act, selection, most)


@dataclass(kw_only=True)
class Triage:
    """One round through the letters."""

    desk: Desk
    rules: ReplayRules
    export: Path
    ask: Ask
    counts: Counter[str] = field(default_factory=Counter)

    async def go_through(self, entries: list[DeadLetterEntry]) -> None:
        """Ask for each letter until all are decided or the operator quits; print the sums however it ends."""
        try:
            for number, entry in enumerate(entries, 1):
                say("")
                say((f"{number} of {len(entries)}", "bold"))
                if not await self._decide(entry):
                    return
        finally:
            left = len(entries) - self.counts.total()
            done = ", ".join(f"{name} {self.counts[name]}" for name in ("replayed", "dropped", "skipped"))
            say("")
            say(f"{done}; {left} of {len(entries)} untouched")

    async def _decide(self, entry: DeadLetterEntry) -> bool:
        """Ask until the letter is decided; return False to quit."""
        desk, edits = self.desk, tuple[Edit, ...]()
        print_fitted(letter_card(entry, desk.holding.letter(entry), desk.short(entry), desk.now))
        done = False
        while not done:
            match (await self.ask(CHOICES) or "q").strip().lower():
                case "q" | "quit":
                    return False
                case "r" | "replay":
                    done = await self._replay(entry, edits)
                case "d" | "drop":
                    done = await self._drop(entry)
                case "e" | "edit":
                    edits = await self._edit(entry, edits)
                case "s" | "skip" | "":
                    done = self._count("skipped")
                case other:
                    say(("?", "yellow"), f" {other}: one of r, e, d, s, q")
        return True

    def _count(self, outcome: Outcome) -> bool:
        self.counts[outcome] += 1
        return True

    async def _edit(self, entry: DeadLetterEntry, edits: tuple[Edit, ...]) -> tuple[Edit, ...]:
        """Ask for fields, and return all edits if a replay with them is possible, otherwise those there were."""
        wanted = edits
        while answer := (await self.ask(FIELD)).strip():
            try:
                wanted = (*wanted, Edit.parse(answer))
            except EditRefused as exc:
                say(("?", "yellow"), f" {exc}")
        decision = plan(entry, self.desk.holding.letter(entry), self._with(wanted), self.desk.now)
        if isinstance(decision, Refusal):
            say(("not possible", "yellow"), f" {decision.reason}")
            return edits
        fields = ", ".join(f"{'.'.join(edit.path)}={edit.value}" for edit in wanted)
        say(f"r replays it with {fields}" if wanted else "nothing is changed")
        return wanted

    async def _replay(self, entry: DeadLetterEntry, edits: tuple[Edit, ...]) -> bool:
        """Replay one letter; return False where it is still to be decided."""
        desk = self.desk
        if (current := await self._adopted(entry)) is None:
            return False
        decision = plan(current, desk.holding.letter(current), self._with(edits), desk.now)
        topic = desk.pubsub.topic(desk.cloud.jobs_topic)
        work = replay(desk.holding, topic, [decision], per_second=self.rules.per_second, clock=desk.clock)
        return await self._follow(work, "replayed")

    async def _drop(self, entry: DeadLetterEntry) -> bool:
        """Export and drop one letter; return False where it is still to be decided."""
        if (current := await self._adopted(entry)) is None:
            return False
        with self.export.open("a", encoding="utf-8") as file:
            work = drop(self.desk.holding, [current], lambda line: append(file, line))
            return await self._follow(work, "dropped")

    async def _follow(self, work: AsyncGenerator[DeadLetterEntry | Republish | Refusal], outcome: Outcome) -> bool:
        async with aclosing(work) as outcomes:
            async for each in outcomes:
                if isinstance(each, Refusal):
                    return self._stays(each)
                self._count(outcome)
                run = f" as run {each.attributes['run']}" if isinstance(each, Republish) else ""
                say((outcome, "green"), run or f"; its messages are in {self.export}")
        return True

    async def _adopted(self, entry: DeadLetterEntry) -> DeadLetterEntry | None:
        """Return the letter once its job has had its last events; None where that is not possible now."""
        if refusals := await adopt_policy_letters(self.desk, [entry]):
            self._stays(refusals[0])
            return None
        held = (each for each in self.desk.holding.entries if each.dead_letter_id == entry.dead_letter_id)
        return next(held, entry)

    def _stays(self, refusal: Refusal) -> bool:
        """Print why a letter stays; return True where it is not held any more, since it could not be acknowledged."""
        say(("stays", "yellow"), f" {refusal.reason}")
        held = {each.dead_letter_id for each in self.desk.holding.entries}
        return refusal.entry.dead_letter_id not in held and self._count("skipped")

    def _with(self, edits: tuple[Edit, ...]) -> ReplayRules:
        return replace(self.rules, edits=edits)


async def ask_on_terminal(prompt: str) -> str:
    """Print the prompt and wait for a line, while leases are extended; empty at the end of the input."""
    out().print(prompt, end="", markup=False)
    loop, descriptor = asyncio.get_running_loop(), sys.stdin.fileno()
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)
    return os.read(descriptor, MOST_OF_AN_ANSWER).decode(errors="replace")
