"""The desk of the dead-letter console: the selected letters, held while a command works on them, and what it needs."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from difflib import get_close_matches
from functools import cached_property, partial
from itertools import count
from typing import TYPE_CHECKING, TypeAlias

from schemas.text import plain
from worker.adapters.machine.clock import SystemClock
from worker.adapters.pubsub.pubsub import CallTimeouts, PubSub, open_pubsub
from worker.commands.console import EXIT_USAGE, err, fail, load_settings, note
from worker.commands.prerequisites import demand, demand_temp_dir
from worker.core.dead_letters.adoption import adopted
from worker.core.dead_letters.entries import (
    DeadLetterEntry,
    Origin,
    Selection,
    forwarded,
    histogram,
    named,
    short_ids,
)
from worker.core.dead_letters.hold import Holding, HoldLimits, hold_dead_letters
from worker.core.dead_letters.replay import Refusal, known_codes
from worker.core.tasks import finished
from worker.settings import CloudSettings, EngineSettings, JobSettings, MoneySettings, RoutingSettings
from worker.telemetry import configure_logging

if TYPE_CHECKING:
    from worker.core.jobs.attempt import Jobs

_OpenJobs: TypeAlias = Callable[[PubSub], AbstractAsyncContextManager["Jobs"]]

PULL_SECONDS = 2.0
"""Three empty answers, which are waited for together, end a listing."""
MOST_CANDIDATES = 10
MOST_OF_AN_ID = 128
BEST_EFFORT = "best effort: letters that another reader holds at this moment are not seen"
NOT_TRIED = "not adopted: one before it failed for a reason that concerns all"


@dataclass(frozen=True, kw_only=True)
class Desk:
    """The held letters and the services that act on them."""

    pubsub: PubSub
    cloud: CloudSettings
    jobs: JobSettings
    open_jobs: "_OpenJobs"
    selection: Selection
    holding: Holding
    clock: SystemClock

    @property
    def now(self) -> datetime:
        """The time."""
        return self.clock.now()

    @property
    def selected(self) -> list[DeadLetterEntry]:
        """The held letters that the command line selects."""
        now = self.now
        return [entry for entry in self.holding.entries if self.selection.matches(entry, now)]

    @property
    def adopted(self) -> list[DeadLetterEntry]:
        """Those selected whose jobs have had their last events."""
        return [entry for entry in self.selected if entry.origin is not Origin.POLICY]

    @cached_property
    def _short_ids(self) -> dict[str, str]:
        return short_ids(self.holding.entries)

    def short(self, entry: DeadLetterEntry) -> str:
        """Return the id that is shown, and that names the letter to the next command."""
        return self._short_ids.get(entry.dead_letter_id, entry.dead_letter_id)

    def resolved(self) -> "Desk":
        """Return the desk with whole ids in its selection.

        Ends the command where an id is ambiguous, where no id names a letter, or where a code is none.
        """
        entries, ids, missing = self.holding.entries, set[str](), list[str]()
        for text in sorted(self.selection.ids):
            found = named(entries, text)
            if len(found) > 1:
                fail(f"{text} is the beginning of {len(found)} dead letters: {_candidates(found)}", EXIT_USAGE)
            ids.update(entry.dead_letter_id for entry in found)
            missing += [] if found else [text]
        if missing:
            of_jobs = [entry for entry in entries if entry.job_id in missing]
            hint = f"letters of that job: {_candidates(of_jobs)}" if of_jobs else BEST_EFFORT
            problem = f"no dead letter {', '.join(plain(each, MOST_OF_AN_ID) for each in missing)}; {hint}"
            if not ids:
                fail(problem)
            note(problem)
        _check_codes(self.selection.codes, histogram(entries))
        return replace(self, selection=replace(self.selection, ids=frozenset(ids)))


def _candidates(entries: Sequence[DeadLetterEntry]) -> str:
    short = short_ids(entries)
    shown = [f"{short[entry.dead_letter_id]} ({entry.code}, {entry.job_id})" for entry in entries[:MOST_CANDIDATES]]
    return ", ".join(shown) + (", ..." if len(entries) > MOST_CANDIDATES else "")


def _check_codes(wanted: Collection[str], counts: Mapping[str, int]) -> None:
    there_are = ", ".join(f"{each} ({count})" for each, count in counts.items()) or "no dead letters"
    for code in sorted(set(wanted) - counts.keys()):
        if code in known_codes():
            note(f"no dead letter has the code {code}; there are: {there_are}")
            continue
        like = get_close_matches(code, {*counts, *known_codes()}, n=1)
        meant = f"did you mean {like[0]}? There" if like else "there"
        fail(f"no such code: {code}; {meant} are: {there_are}", EXIT_USAGE)


def with_desk(
    act: Callable[[Desk], Awaitable[int]], selection: Selection, most: int, *, with_messages: bool = True
) -> int:
    """Hold the dead letters while `act` works on them, and return its result."""
    settings = load_settings()
    cloud, jobs, clock = settings.cloud, settings.jobs, SystemClock()
    demand_temp_dir(jobs)
    demand(cloud, pubsub=True)
    configure_logging(settings.telemetry.log_format, settings.telemetry.log_level)
    open_jobs = partial(_jobs, cloud, settings.engine, settings.money, settings.routing, jobs)
    opening = open_pubsub(
        cloud.project_id, emulator_host=cloud.pubsub_emulator_host, timeouts=CallTimeouts(pull=PULL_SECONDS)
    )

    async def run() -> int:
        async with AsyncExitStack() as stack:
            pubsub = await stack.enter_async_context(opening)
            subscription = pubsub.subscription(cloud.dead_letter_subscription)
            with _spinner() as show_count:

                def wanted(entry: DeadLetterEntry) -> bool:
                    show_count()
                    return with_messages and selection.matches(entry, clock.now())

                holding = hold_dead_letters(
                    subscription,
                    lease_seconds=(await subscription.facts()).ack_deadline_seconds,
                    limits=HoldLimits(messages=most, folder=jobs.temp_dir),
                    clock=clock,
                    wanted=wanted,
                )
                held = await stack.enter_async_context(holding)
            if full := held.full_of:
                note(f"{full}: there may be more; what is done here makes room for them")
            desk = Desk(
                pubsub=pubsub,
                cloud=cloud,
                jobs=jobs,
                open_jobs=open_jobs,
                selection=selection,
                holding=held,
                clock=clock,
            )
            return await act(desk.resolved())

    return asyncio.run(run())


async def adopt_policy_letters(desk: Desk, entries: Collection[DeadLetterEntry]) -> list[Refusal]:
    """Give the jobs among `entries` that the subscription's policy gave up on their last events.

    Their envelopes are held afterwards. Returns those that could not be adopted.
    """
    left = {entry.dead_letter_id: entry for entry in entries if entry.origin is Origin.POLICY}
    if not left:
        return []
    from worker.app.worker import adopt_forwarded, adoption_patience_seconds  # noqa: PLC0415  nearly all of the worker

    patience = adoption_patience_seconds(desk.jobs)
    kept, done = dict[str, Refusal](), set[str]()
    async with desk.open_jobs(desk.pubsub) as jobs:

        async def adopt(entry: DeadLetterEntry) -> None:
            await adopt_forwarded(jobs, forwarded(next(desk.holding.messages(entry))))
            await desk.holding.settle(entry)

        def on_wait(count: int) -> None:
            note(f"jobs that a worker seems to hold: {count}; looking again in {patience:.0f} s")

        outcomes = adopted(
            [*left.values()],
            lambda entry: finished(adopt(entry)),
            patience_seconds=patience,
            clock=desk.clock,
            on_wait=on_wait,
        )
        async for entry, error in outcomes:
            if error is None:
                done.add(entry.dead_letter_id)
            else:
                kept[entry.dead_letter_id] = Refusal(entry=entry, reason=f"not adopted: {error}")
    await desk.holding.gather(lambda: done <= {entry.dead_letter_id for entry in desk.holding.entries})
    rest = [Refusal(entry=left[each], reason=NOT_TRIED) for each in left.keys() - kept.keys() - done]
    return [*kept.values(), *rest]


@contextmanager
def _spinner() -> Iterator[Callable[[], None]]:
    """Show on a terminal's stderr that letters are being read; what it yields counts one."""
    console, counted = err(), count(1)
    if not console.is_terminal:
        yield lambda: None
        return
    with console.status("reading dead letters") as status:
        yield lambda: status.update(f"reading dead letters: {next(counted)}")


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
    from worker.app.engines import engines_of, make_decoder  # noqa: PLC0415
    from worker.app.recogniser import NoEngine  # noqa: PLC0415
    from worker.app.worker import make_jobs, routing_policy  # noqa: PLC0415

    async with open_object_store(project=names.project_id) as store:
        cloud = Cloud(pubsub=pubsub, store=store, names=names)
        engines = engines_of(engine, money, NoEngine("this command does not transcribe"), None)
        decoder, policy = make_decoder(settings, engine), routing_policy(routing, engine)
        yield make_jobs(cloud, engines, decoder, policy, settings, settings.temp_dir)
