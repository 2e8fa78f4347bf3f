"""`dlq replay` of many dead letters, killed half-way and run again: nothing lost, nothing done twice.

`python -m tests.chaos.replay` does it with the 500 of issue 3, Shows 5.
"""

import argparse
import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.chaos.dice import Dice
from tests.chaos.fleet import CHAOS, ROOT, fleet
from tests.chaos.orders import job_for, recordings
from tests.chaos.stage import ACK_DEADLINE_SECONDS, Scene, Stage, stage
from tests.support.audio.media import MediaKit
from tests.support.wait import eventually

MISSING = "missing.mp3"
STILL_MISSING = "still-missing.mp3"
MOST_SECONDS = 900.0


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """Result for `jobs` failed jobs, and for one more whose audio stayed missing."""

    jobs: int
    published_before_kill: int
    published_after: int
    completed: int
    completed_once: int
    failed_runs_of_the_hopeless: set[int]
    """0 and 1; 2 as well where it was replayed before the kill and again after it."""
    letters_left: int
    """Distinct ones, of the jobs that should have been completed."""
    seconds: float

    @property
    def kept(self) -> bool:
        """Return True if the limits of Shows 5 are kept."""
        all_done = self.completed == self.completed_once == self.jobs and not self.letters_left
        killed_half_way = 0 < self.published_before_kill < self.jobs
        return all_done and killed_half_way and self.failed_runs_of_the_hopeless >= {0, 1}


async def replay_killed(folder: Path, jobs: int, rate: float) -> Replayed:
    """Let jobs fail, mend the cause, replay, kill the console half-way, replay again."""
    began, dice = time.monotonic(), Dice(rng=random.Random(1))
    async with stage(folder, dice, Dice(rng=random.Random(1))) as on:
        scene = await on.scene("replay")
        worker = scene.environment(on.plain["pubsub"], on.plain["storage"])
        worker |= {"PARAKEET_MODEL_NAME": "null", "TEMP_DIR": str(folder), "MAX_CONCURRENT_JOBS": "8"}
        console = {**CHAOS, **scene.environment(on.pubsub, on.plain["storage"])}
        async with fleet(folder / "logs", worker) as crew, scene.followed():
            await asyncio.gather(*(crew.ready(crew.start()) for _ in range(2)))
            await _let_fail(scene, jobs)
            await _mend(on, folder)
            before = await _killed_replay(dice, console, rate, jobs // 2)
            # What the dead console held comes back when its leases have run out.
            await asyncio.sleep(ACK_DEADLINE_SECONDS)
            await _replay(console, rate)
            await eventually(lambda: asyncio.sleep(0, _ended(scene, jobs)), MOST_SECONDS)
            letters = await scene.dead_letters()
        return Replayed(
            jobs=jobs,
            published_before_kill=before,
            published_after=dice.count("Publish") - before,
            completed=len(scene.outcome.completed),
            completed_once=sum(len(ids) == 1 for ids in scene.outcome.completed.values()),
            failed_runs_of_the_hopeless=scene.outcome.failed_runs["hopeless"],
            letters_left=len({one.dead_letter_id for one in letters if one.run == 0}),
            seconds=time.monotonic() - began,
        )


async def _let_fail(scene: Scene, jobs: int) -> None:
    failing = [job_for(f"job-{number:03d}", MISSING) for number in range(jobs)]
    await scene.publish(*failing, job_for("hopeless", STILL_MISSING))
    await eventually(lambda: asyncio.sleep(0, len(scene.outcome.failed) == jobs + 1), MOST_SECONDS)


async def _mend(on: Stage, folder: Path) -> None:
    media = MediaKit.at(folder)
    recording = (await asyncio.to_thread(recordings, media, 1))[-1]
    await on.upload([type(recording)(name=MISSING, content=recording.content, seconds=recording.seconds)])


def _ended(scene: Scene, jobs: int) -> bool:
    return len(scene.outcome.completed) == jobs and scene.outcome.failed_runs["hopeless"] >= {0, 1}


async def _killed_replay(dice: Dice, environment: Mapping[str, str], rate: float, publishes: int) -> int:
    """Kill the console after the given number of publishes; return the number of publishes in the end."""
    process = _console(environment, rate)
    await eventually(lambda: asyncio.sleep(0, dice.count("Publish") >= publishes), MOST_SECONDS)
    process.kill()
    process.wait()
    return dice.count("Publish")


async def _replay(environment: Mapping[str, str], rate: float) -> None:
    process = _console(environment, rate)
    assert await asyncio.to_thread(process.wait, MOST_SECONDS) == 0


def _console(environment: Mapping[str, str], rate: float) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "worker", "dlq", "replay", "--execute", "--rate", str(rate)]
    return subprocess.Popen(command, env={**os.environ, **environment}, cwd=ROOT, stdout=subprocess.DEVNULL)


def report(found: Replayed) -> Table:
    """As a table."""
    table = Table("figure", "value", title=f"dlq replay of {found.jobs} dead letters, killed half-way and run again")
    for name, value in {
        "republished before the kill, after it": f"{found.published_before_kill}, {found.published_after}",
        "jobs completed": found.completed,
        "of them with one distinct completed event id": found.completed_once,
        "their dead letters left": found.letters_left,
        "runs in which a job without audio failed": sorted(found.failed_runs_of_the_hopeless),
        "seconds": f"{found.seconds:.0f}",
        "as promised": "yes" if found.kept else "NO",
    }.items():
        table.add_row(name, str(value))
    return table


async def _main(jobs: int, rate: float) -> bool:
    with tempfile.TemporaryDirectory(prefix="replay-") as folder:
        found = await replay_killed(Path(folder), jobs, rate)
    Console().print(report(found))
    return found.kept


def main() -> None:
    """Exit status 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.replay")
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--rate", type=float, default=50.0)
    arguments = parser.parse_args()
    if not asyncio.run(_main(arguments.jobs, arguments.rate)):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
