"""Checks at the end of a campaign; issue 3, Shows 1."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from schemas.dead_letter import DeadLetter
from tests.chaos.campaign import Result
from tests.chaos.stage import ACK_DEADLINE_SECONDS

CHUNKS_IN_FLIGHT = 2
MOST_EXIT_SECONDS = 8.0


@dataclass(frozen=True, kw_only=True)
class Check:
    """A promise, what was found, and whether that keeps it."""

    promise: str
    found: str
    kept: bool


async def checks(result: Result) -> list[Check]:
    """All of them."""
    # A worker may have been killed in the moment in which it looked for forwarded letters: these come back.
    await asyncio.sleep(ACK_DEADLINE_SECONDS)
    letters = await result.chaos.dead_letters()
    return [
        *_good_jobs(result),
        *_bad_jobs(result, letters),
        *await _leftovers(result),
        *_work(result),
        *_violence(result),
    ]


def _good_jobs(result: Result) -> Iterable[Check]:
    outcome, good = result.chaos.outcome, [order for order in result.orders if order.good]
    once = [order for order in good if len(outcome.completed[order.job_id]) == 1]
    billed = [order for order in good if len(outcome.cost[order.job_id]) == 1]
    yield Check(
        promise="good jobs with exactly one distinct completed event id, and one cost event id",
        found=f"{len(once)} and {len(billed)} of {len(good)}",
        kept=len(once) == len(billed) == len(good) and not result.chaos.outcome.completed.keys() - _ids(good),
    )
    quiet, chaos = result.quiet.artefacts(), result.chaos.artefacts()
    same = [name for name in quiet if quiet[name] == chaos.get(name)]
    yield Check(
        promise="artefacts byte-identical to those of a quiet run, and no others",
        found=f"{len(same)} of {len(quiet)}; {len(chaos.keys() - quiet.keys())} others",
        kept=bool(quiet) and len(same) == len(quiet) == len(chaos),
    )


def _bad_jobs(result: Result, letters: list[DeadLetter]) -> Iterable[Check]:
    bad = [order for order in result.orders if not order.good]
    by_data: defaultdict[bytes | None, list[DeadLetter]] = defaultdict(list)
    for letter in letters:
        by_data[letter.original.data].append(letter)
    told = [order for order in bad if {letter.code for letter in by_data[order.data]} == {order.fails_with}]
    once = [order for order in bad if len({letter.dead_letter_id for letter in by_data[order.data]}) == 1]
    yield Check(
        promise="bad jobs with exactly one distinct dead_letter_id, with the right code",
        found=f"{len(once)} and {len(told)} of {len(bad)}",
        kept=len(once) == len(told) == len(bad),
    )
    failed = result.chaos.outcome.failed
    ids = {letter.dead_letter_id for letter in letters}
    single = [reference for reference in ids if len(failed.get(reference, ())) == 1]
    yield Check(
        promise="bad jobs with exactly one distinct failed event id",
        found=f"{len(single)} of {len(bad)}",
        kept=len(single) == len(bad) and failed.keys() == ids,
    )
    foreign = [letter for letter in letters if letter.original.data not in {order.data for order in bad}]
    yield Check(promise="nothing else in the dead letters", found=_some(foreign), kept=not foreign)


async def _leftovers(result: Result) -> Iterable[Check]:
    chaos, downloads = result.chaos, [path.name for path in result.downloads.rglob("*")]
    claims, checkpoints = await chaos.state("claims/"), await chaos.state("checkpoints/")
    left = await chaos.jobs_left()
    return [
        Check(promise="no claim left", found=_some(claims), kept=not claims),
        Check(promise="no checkpoint left", found=_some(checkpoints), kept=not checkpoints),
        Check(promise="no temporary file left", found=_some(downloads), kept=not downloads),
        Check(promise="no orphan process", found=_some(result.orphans), kept=not result.orphans),
        Check(promise="no message left on the jobs subscription", found=str(left), kept=not left),
    ]


def _work(result: Result) -> Iterable[Check]:
    book = result.book
    lost = book.interrupted.total()
    yield Check(
        promise="chunks redone <= chunks in flight when something stopped their job",
        found=f"{book.redone} <= {lost} ({json.dumps(dict(book.interrupted))})",
        kept=book.redone <= lost,
    )
    yield Check(
        promise=f"never more than {CHUNKS_IN_FLIGHT} chunks of a job in flight",
        found=str(result.most_in_flight_of_a_job),
        kept=result.most_in_flight_of_a_job <= CHUNKS_IN_FLIGHT,
    )


def _violence(result: Result) -> Iterable[Check]:
    plan = result.plan
    yield Check(
        promise=f">= {plan.kills} kill -9 and >= {plan.terms} SIGTERM at workers with a checkpointed job",
        found=f"{result.kills} and {result.terms}; {result.misses} more at the wrong moment",
        kept=result.kills >= plan.kills and result.terms >= plan.terms,
    )
    slowest = max(result.exit_seconds)
    yield Check(
        promise=f"exit after SIGTERM within {MOST_EXIT_SECONDS:g} s with status 0",
        found=f"slowest of {len(result.exit_seconds)}: {slowest:.2f} s",
        kept=slowest < MOST_EXIT_SECONDS,
    )


def _ids(orders: Iterable[object]) -> set[str | None]:
    return {getattr(order, "job_id", None) for order in orders}


def _some(found: Iterable[object]) -> str:
    listed = [str(one)[:120] for one in found]
    return "none" if not listed else f"{len(listed)}: {', '.join(listed[:3])}"
