"""`python -m tests.chaos`: campaigns, one after another. `make chaos` runs the full one with three seeds."""

import argparse
import asyncio
import shutil
import signal
import tempfile
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from tests.chaos.campaign import Plan, campaign
from tests.chaos.checks import checks
from tests.chaos.fleet import adopt_orphans
from tests.chaos.report import print_report
from tests.support.queues.official_emulator import running_emulator

SHORT = Plan(
    seed=0,
    good=17,
    bad=3,
    recordings=5,
    longest_seconds=180.0,
    workers=2,
    speed=40,
    kills=2,
    terms=1,
    seconds_between_blows=(0.2, 1.5),
    publish_seconds=1.0,
)


def main() -> None:
    """Exit status 1 when a promise was broken; the logs are then kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--seed", type=int, action="append", help="may be given several times")
    parser.add_argument("--short", action="store_true", help="20 jobs and 3 blows instead of 200 and 60")
    parser.add_argument(
        "--official", action="store_true", help="the official Pub/Sub emulator, which must be installed"
    )
    parser.add_argument("--keep", type=Path, help="folder for logs and objects; default: one that is removed")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that our workers end with us
    adopt_orphans()
    plan = SHORT if arguments.short else Plan(seed=0)
    seeds = arguments.seed or [1]
    kept = [_run(replace(plan, seed=seed), arguments.keep, official=arguments.official) for seed in seeds]
    if not all(kept):
        raise SystemExit(1)


def _run(plan: Plan, keep: Path | None, *, official: bool) -> bool:
    folder = (keep or Path(tempfile.mkdtemp(prefix="chaos-"))) / f"seed-{plan.seed}"
    folder.mkdir(parents=True)
    with running_emulator(folder) if official else nullcontext() as pubsub:
        kept = asyncio.run(_judge(plan, folder, pubsub))
    if kept and keep is None:
        shutil.rmtree(folder.parent)
    else:
        Console().print(f"logs and objects: {folder}")
    return kept


async def _judge(plan: Plan, folder: Path, pubsub: str | None) -> bool:
    async with campaign(plan, folder, pubsub) as result:
        found = await checks(result)
        print_report(result, found, Console())
    return all(check.kept for check in found)


if __name__ == "__main__":
    main()
