"""Number of deliveries of a message: one for a job longer than three leases, two for two workers that share a job.

`python -m tests.chaos.deliveries` measures what issue 3 asks in Shows 3 and 4, on real workers and a real clock.
"""

import asyncio
import random
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.chaos.dice import Dice
from tests.chaos.fleet import Fleet, fleet
from tests.chaos.orders import Recording, job_for, recordings
from tests.chaos.stage import ACK_DEADLINE_SECONDS, Scene, stage
from tests.support.audio.media import MediaKit
from tests.support.wait import eventually

LONG_SECONDS = 3.6 * ACK_DEADLINE_SECONDS
MOST_SECONDS = 180.0


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """Result for one message, or for two."""

    seconds: float
    messages: int
    deliveries: int
    attempts: int
    """The highest that Pub/Sub counted."""
    chunks_begun: Counter[int]
    completed_ids: int
    extensions: int

    @property
    def once_each(self) -> bool:
        """One delivery a message, one transcription, one completed event."""
        once = self.deliveries == self.messages and self.attempts == 1 and self.completed_ids == 1
        return once and set(self.chunks_begun.values()) == {1}


async def deliver(folder: Path, *, audio_seconds: float, job_seconds: float, workers: int, messages: int) -> Delivered:
    """Publish a job `messages` times and let `workers` of one slot each do it, in about `job_seconds`."""
    async with _theatre(folder, audio_seconds, audio_seconds / job_seconds) as (scene, crew, recording, dice):
        await asyncio.gather(*(crew.ready(crew.start(MAX_CONCURRENT_JOBS="1")) for _ in range(workers)))
        began = time.monotonic()
        ids = set(await scene.publish(*[job_for("job", recording.name)] * messages))
        await eventually(lambda: asyncio.sleep(0, ids <= crew.book.settled.keys()), MOST_SECONDS)
        await eventually(lambda: asyncio.sleep(0, scene.outcome.messages >= 2 * messages), MOST_SECONDS)
        return Delivered(
            seconds=time.monotonic() - began,
            messages=messages,
            deliveries=crew.book.received.total(),
            attempts=max(crew.book.attempts),
            chunks_begun=crew.book.started["job"],
            completed_ids=len(scene.outcome.completed["job"]),
            extensions=dice.count("ModifyAckDeadline"),
        )


@asynccontextmanager
async def _theatre(
    folder: Path, audio_seconds: float, speed: float
) -> AsyncIterator[tuple[Scene, Fleet, Recording, Dice]]:
    media, dice = MediaKit.at(folder), Dice(rng=random.Random(1))
    recording = (await asyncio.to_thread(recordings, media, 2, audio_seconds))[-1]
    async with stage(folder, dice, Dice(rng=random.Random(1))) as on:
        await on.upload([recording])
        scene = await on.scene("deliveries")
        environment = scene.environment(on.pubsub, on.plain["storage"])
        environment |= {"PARAKEET_MODEL_NAME": f"null:{speed:.3f}x", "TEMP_DIR": str(folder)}
        environment |= {"CLAIM_TTL_SECONDS": "30"}  # a busy machine is no reason to take a job over
        async with fleet(folder / "logs", environment) as crew, scene.followed():
            yield scene, crew, recording, dice


def report(title: str, found: Delivered) -> Table:
    """As a table."""
    table = Table("figure", "value", title=title)
    for name, value in {
        "seconds from the first publish to the last ack": f"{found.seconds:.1f}",
        "messages, deliveries": f"{found.messages}, {found.deliveries}",
        "highest delivery attempt": found.attempts,
        "times each chunk was begun": sorted(set(found.chunks_begun.values())),
        "distinct completed event ids": found.completed_ids,
        "extensions of leases": found.extensions,
        "as promised": "yes" if found.once_each else "NO",
    }.items():
        table.add_row(name, str(value))
    return table


async def _main() -> bool:
    with tempfile.TemporaryDirectory(prefix="deliveries-") as name:
        long = await deliver(Path(name, "long"), audio_seconds=1200, job_seconds=LONG_SECONDS, workers=1, messages=1)
        shared = await deliver(Path(name, "shared"), audio_seconds=240, job_seconds=6, workers=2, messages=2)
    Console().print(report(f"a job longer than three leases of {ACK_DEADLINE_SECONDS} s", long))
    Console().print(report("a job published twice, to two workers", shared))
    return long.once_each and long.seconds > 3 * ACK_DEADLINE_SECONDS and shared.once_each


def main() -> None:
    """Exit status 1 where a promise was broken."""
    if not asyncio.run(_main()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
