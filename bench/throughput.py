"""Overhead of the worker: many short jobs with the null engine against a bare loop, in turns.

`python -m bench.throughput` does the 2,000 of issue 3, Shows 6. Worker and loop are processes of their own on the
same servers; they take turns of a hundred jobs, so that whatever else the machine does hits both.
"""

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psutil
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench.bare_loop import READY
from tests.chaos.dice import Dice
from tests.chaos.fleet import ROOT, fleet
from tests.chaos.orders import Order, Recording, job_for, recordings
from tests.chaos.stage import Scene, Stage, stage
from tests.support.audio.media import MediaKit
from tests.support.wait import eventually

SLOTS = 4
TURN_JOBS = 100
EVENTS_PER_JOB = 2
MOST_SECONDS = 600.0
MOST_RATIO = 1.5
MIB = 1 << 20
MOST_GROWTH_MIB = 16.0


@dataclass(kw_only=True)
class Runner:
    """One of the two: its project, its process, and what it took so far."""

    name: str
    scene: Scene
    process: psutil.Process
    jobs: int = 0
    events: int = 0
    seconds: list[float] = field(default_factory=list)
    """A turn each."""
    cpu_seconds: float = 0.0
    """Memory of the process and its children."""
    rss_mib: list[float] = field(default_factory=list)

    @property
    def ms_per_job(self) -> float:
        """Wall-clock time of all turns over their jobs."""
        return 1000 * sum(self.seconds) / self.jobs

    @property
    def cpu_ms_per_job(self) -> float:
        """The same for processor time."""
        return 1000 * self.cpu_seconds / self.jobs

    @property
    def growth_mib(self) -> float:
        """By how much the last quarter's memory is above the second one's."""
        quarter = max(1, len(self.rss_mib) // 4)
        return median(self.rss_mib[-quarter:]) - median(self.rss_mib[quarter : 2 * quarter] or self.rss_mib)

    async def warm_up(self, recording: Recording) -> None:
        """Let it make its connections."""
        await self._do([job_for(f"warm-{number}", recording.name) for number in range(SLOTS)])

    async def turn(self, recording: Recording) -> None:
        """Let it do a hundred more."""
        orders = [job_for(f"job-{self.jobs + number:05d}", recording.name) for number in range(TURN_JOBS)]
        cpu, began = self._cpu(), time.monotonic()
        await self._do(orders)
        self.seconds.append(time.monotonic() - began)
        self.cpu_seconds += self._cpu() - cpu
        self.rss_mib.append(self.process.memory_info().rss / MIB)
        self.jobs += len(orders)

    async def _do(self, orders: Sequence[Order]) -> None:
        wanted = self.events + EVENTS_PER_JOB * len(orders)
        await self.scene.publish(*orders)

        async def done() -> bool:
            self.events += len(await self.scene.take_events())
            return self.events >= wanted

        await eventually(done, MOST_SECONDS)

    def _cpu(self) -> float:
        spent = self.process.cpu_times()
        return spent.user + spent.system + spent.children_user + spent.children_system


async def compare(folder: Path, jobs: int) -> tuple[Runner, Runner]:
    """Worker and loop, after that many jobs each."""
    recording = (await asyncio.to_thread(recordings, MediaKit.at(folder), 1))[-1]
    async with stage(folder, Dice(rng=random.Random(1)), Dice(rng=random.Random(1))) as on:
        await on.upload([recording])
        async with _worker(on, folder) as worker, _bare_loop(on) as loop:
            await worker.warm_up(recording)
            await loop.warm_up(recording)
            for _ in track(range(jobs // TURN_JOBS), "in turns of a hundred"):
                await worker.turn(recording)
                await loop.turn(recording)
        return worker, loop


@asynccontextmanager
async def _worker(on: Stage, folder: Path) -> AsyncIterator[Runner]:
    scene = await on.scene("worker")
    environment = _environment(on, scene) | {"PARAKEET_MODEL_NAME": "null", "TEMP_DIR": str(folder)}
    async with fleet(folder / "logs", environment) as crew:
        member = crew.start(CLAIM_TTL_SECONDS="30", CHUNK_DURATION_MINUTES="10")
        await crew.ready(member)
        yield Runner(name="worker", scene=scene, process=psutil.Process(member.process.pid))


@asynccontextmanager
async def _bare_loop(on: Stage) -> AsyncIterator[Runner]:
    scene = await on.scene("bare-loop")
    command = [sys.executable, "-m", "bench.bare_loop"]
    environment = {**os.environ, **_environment(on, scene)}
    process = await asyncio.create_subprocess_exec(*command, env=environment, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout
        assert (await process.stdout.readline()).decode().strip() == READY
        yield Runner(name="bare loop", scene=scene, process=psutil.Process(process.pid))
    finally:
        process.kill()
        await process.communicate()


def _environment(on: Stage, scene: Scene) -> dict[str, str]:
    return scene.environment(on.plain["pubsub"], on.plain["storage"]) | {"MAX_CONCURRENT_JOBS": str(SLOTS)}


def report(worker: Runner, loop: Runner) -> Table:
    """As a table."""
    table = Table(
        "figure", worker.name, loop.name, "ratio", "allowed", title=f"{worker.jobs} jobs each, {SLOTS} at once"
    )
    for name, mine, bare, allowed in (
        ("ms per job", worker.ms_per_job, loop.ms_per_job, f"{MOST_RATIO:g}"),
        ("processor ms per job", worker.cpu_ms_per_job, loop.cpu_ms_per_job, ""),
        ("resident memory at the end, MiB", worker.rss_mib[-1], loop.rss_mib[-1], ""),
    ):
        table.add_row(name, f"{mine:.1f}", f"{bare:.1f}", f"{mine / bare:.2f}", allowed)
    table.add_row(
        "memory growth, MiB", f"{worker.growth_mib:.1f}", f"{loop.growth_mib:.1f}", "", f"{MOST_GROWTH_MIB:g}"
    )
    return table


async def _main(jobs: int) -> bool:
    with tempfile.TemporaryDirectory(prefix="throughput-") as folder:
        worker, loop = await compare(Path(folder), jobs)
    Console().print(report(worker, loop))
    return worker.ms_per_job <= MOST_RATIO * loop.ms_per_job and worker.growth_mib <= MOST_GROWTH_MIB


def main() -> None:
    """Exit status 1 where the worker is too slow or its memory grows."""
    parser = argparse.ArgumentParser(prog="python -m bench.throughput")
    parser.add_argument("--jobs", type=int, default=2000)
    if not asyncio.run(_main(parser.parse_args().jobs)):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
