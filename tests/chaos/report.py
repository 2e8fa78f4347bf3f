"""A campaign as tables."""

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from tests.chaos.campaign import Result
from tests.chaos.checks import Check
from tests.chaos.dice import Dice, Fate


def print_report(result: Result, found: Sequence[Check], console: Console) -> None:
    """The promises, the work, the faults."""
    plan = result.plan
    console.print(_promises(found, f"chaos, seed {plan.seed}: {len(result.orders)} jobs, {plan.workers} workers"))
    console.print(_facts(result))
    console.print(_faults({"Pub/Sub": result.stage.pubsub_dice, "Cloud Storage": result.stage.storage_dice}))


def _promises(found: Sequence[Check], title: str) -> Table:
    table = Table("", "promise", "found", title=title)
    for check in found:
        table.add_row("[green]kept[/]" if check.kept else "[red]BROKEN[/]", check.promise, check.found)
    return table


def _facts(result: Result) -> Table:
    book, outcome = result.book, result.chaos.outcome
    table = Table("figure", "value", title="work")
    for name, value in {
        "chunks done": sum(counts.total() for counts in book.done.values()),
        "chunks redone": book.redone,
        "chunks skipped (taken from checkpoints)": sum(counts.total() for counts in book.skipped.values()),
        "chunks in flight at each kill -9": " ".join(map(str, result.in_flight_at_kill)),
        "deliveries / messages published": f"{book.received.total()} / {len(result.published)}",
        "events read / distinct": f"{outcome.messages} / {outcome.distinct}",
        "worker processes": result.worker_starts,
        "jobs parked": book.events["job.parked"],
        "claims lost, leases lost": f"{book.events['claim.lost']}, {book.events['lease.lost']}",
        "exit after SIGTERM, median / slowest": _seconds(result.exit_seconds),
        "quiet run, chaos run": f"{result.quiet_seconds:.0f} s, {result.chaos_seconds:.0f} s",
    }.items():
        table.add_row(name, str(value))
    return table


def _faults(services: dict[str, Dice]) -> Table:
    table = Table("service", "method", "calls", *(fate.value for fate in Fate if fate is not Fate.WELL), title="faults")
    for service, dice in services.items():
        calls = Counter(method for method, _ in dice.tally.elements())
        for method, count in calls.most_common():
            fates = [str(dice.count(method, fate)) for fate in Fate if fate is not Fate.WELL]
            table.add_row(service, method, str(count), *fates)
    return table


def _seconds(values: Sequence[float]) -> str:
    ordered = sorted(values)
    return f"{ordered[len(ordered) // 2]:.2f} s / {ordered[-1]:.2f} s" if ordered else "-"
