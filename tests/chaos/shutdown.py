"""SIGTERM during a job, again and again: how fast the worker exits, how fast and from where another one goes on.

`python -m tests.chaos.shutdown` makes the 50 tries of issue 3, Shows 2.
"""

import argparse
import asyncio
import random
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tests.chaos.dice import Dice, Fate, Odds
from tests.chaos.fleet import Fleet, Member, fleet
from tests.chaos.logbook import Held
from tests.chaos.orders import Recording, job_for, recordings
from tests.chaos.stage import MIN_BACKOFF_SECONDS, Scene, stage
from tests.support.audio.media import MediaKit
from tests.support.wait import eventually

AUDIO_SECONDS = 240.0
SPEED = 60
MOST_EXIT_SECONDS = 8.0
MOST_RESTART_SECONDS = MIN_BACKOFF_SECONDS + 5.0


@dataclass(frozen=True, kw_only=True)
class Try:
    """One SIGTERM. `finished` chunks existed at that time; the next worker began `restart_seconds` after it."""

    exit_seconds: float
    restart_seconds: float
    finished: int
    skipped: int

    @property
    def kept(self) -> bool:
        """Return True if the limits of Shows 2 are kept."""
        in_time = self.exit_seconds < MOST_EXIT_SECONDS and self.restart_seconds < MOST_RESTART_SECONDS
        return in_time and self.skipped >= self.finished > 0


async def tries(folder: Path, count: int, rng: random.Random, workers: int = 3) -> AsyncIterator[Try]:
    """Send the given number of SIGTERMs on a quiet network, to the worker that has the job while another waits."""
    async with _theatre(folder, workers, Dice(rng=rng)) as (scene, crew, recording):
        for number in range(count):
            yield await _try(scene, crew, recording, number, rng)


async def exit_with_hanging_storage(folder: Path) -> float:
    """Seconds that a worker with a job takes to exit when Cloud Storage has stopped to answer."""
    storage = Dice(rng=random.Random(1))
    async with _theatre(folder, 1, storage) as (scene, crew, recording):
        (message_id,) = await scene.publish(job_for("job", recording.name))
        victim = await _holder(crew, message_id)
        storage.otherwise = Odds(stalled=1)
        await eventually(lambda: asyncio.sleep(0, any(fate is Fate.STALLED for _, fate in storage.tally)))
        return await crew.stop(victim)


@asynccontextmanager
async def _theatre(folder: Path, workers: int, storage: Dice) -> AsyncIterator[tuple[Scene, Fleet, Recording]]:
    media = MediaKit.at(folder)
    recording = (await asyncio.to_thread(recordings, media, 2, AUDIO_SECONDS))[-1]
    async with stage(folder, Dice(rng=random.Random(1)), storage) as on:
        await on.upload([recording])
        scene = await on.scene("shutdown")
        environment = scene.environment(on.plain["pubsub"], on.storage)
        environment |= {"PARAKEET_MODEL_NAME": f"null:{SPEED}x", "TEMP_DIR": str(folder)}
        async with fleet(folder / "logs", environment) as crew:
            await asyncio.gather(*(crew.ready(crew.start()) for _ in range(workers)))
            yield scene, crew, recording


async def _try(scene: Scene, crew: Fleet, recording: Recording, number: int, rng: random.Random) -> Try:
    order = job_for(f"job-{number}", recording.name)
    (message_id,) = await scene.publish(order)
    victim = await _holder(crew, message_id)
    await asyncio.sleep(rng.uniform(0, 0.4 * AUDIO_SECONDS / SPEED))
    signalled = datetime.now(UTC)
    victim.log.read()
    finished = len(victim.log.held[message_id].finished)
    exit_seconds = await crew.stop(victim)
    replacement = crew.start()
    successor = await _holder(crew, message_id, finished=0)
    received = datetime.fromisoformat(successor.log.times[message_id])
    await eventually(lambda: asyncio.sleep(0, message_id in crew.book.settled), 60)
    await crew.ready(replacement)
    return Try(
        exit_seconds=exit_seconds,
        restart_seconds=(received - signalled).total_seconds(),
        finished=finished,
        skipped=crew.book.skipped[f"job-{number}"].total(),
    )


async def _holder(crew: Fleet, message_id: str, finished: int = 1) -> Member:
    """Return the worker that has the message, once it has finished the given number of chunks."""

    def holding() -> list[Member]:
        held = [(member, member.log.held.get(message_id)) for member in crew.members]
        return [member for member, one in held if isinstance(one, Held) and len(one.finished) >= finished]

    await eventually(lambda: asyncio.sleep(0, bool(holding())), 60)
    return holding()[0]


def report(found: list[Try]) -> Table:
    """The slowest of everything."""
    table = Table("figure", "median", "slowest", "allowed", title=f"{len(found)} SIGTERMs during a job")
    for name, values, allowed in (
        ("exit, s", sorted(one.exit_seconds for one in found), MOST_EXIT_SECONDS),
        ("start on another worker, s", sorted(one.restart_seconds for one in found), MOST_RESTART_SECONDS),
    ):
        table.add_row(name, f"{values[len(values) // 2]:.2f}", f"{values[-1]:.2f}", f"{allowed:g}")
    table.add_row("chunks finished, all tries", str(sum(one.finished for one in found)), "", "")
    table.add_row("of them skipped by the next worker", str(sum(one.skipped for one in found)), "", "")
    return table


async def _main(count: int, seed: int) -> bool:
    with tempfile.TemporaryDirectory(prefix="shutdown-") as folder:
        found: list[Try] = []
        with Progress(console=Console(stderr=True)) as bars:
            bar = bars.add_task("SIGTERMs", total=count)
            async for one in tries(Path(folder), count, random.Random(seed)):
                found.append(one)
                bars.advance(bar)
    Console().print(report(found))
    return all(one.kept for one in found)


def main() -> None:
    """Exit status 1 when one try was too slow or did not go on from the checkpoints."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.shutdown")
    parser.add_argument("--tries", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if not asyncio.run(_main(arguments.tries, arguments.seed)):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
