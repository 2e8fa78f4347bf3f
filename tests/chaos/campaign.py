"""One campaign: the same jobs on a quiet worker, then on a fleet that is killed, behind networks that fail."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from tests.chaos.dice import HARD_TIMES, Dice, Odds
from tests.chaos.fleet import Fleet, Member, descendants, fleet
from tests.chaos.logbook import Book
from tests.chaos.orders import Order, orders, recordings
from tests.chaos.stage import ACK_DEADLINE_SECONDS, MAX_BACKOFF_SECONDS, Scene, Stage, stage
from tests.support.audio.media import MediaKit
from tests.support.wait import eventually

LOOK_SECONDS = 0.05
TELL_SECONDS = 15.0
MOST_SECONDS = 1500.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Parameters of a campaign; with its seed they determine everything but the machine's timing."""

    seed: int
    good: int = 180
    bad: int = 20
    recordings: int = 12
    longest_seconds: float = 1200.0
    workers: int = 4
    speed: int = 80
    kills: int = 40
    terms: int = 20
    seconds_between_blows: tuple[float, float] = (0.5, 4.0)
    publish_seconds: float = 40.0
    duplicates: float = 0.15
    odds: Odds = HARD_TIMES


@dataclass(kw_only=True)
class Result:
    """Everything that the checks look at."""

    plan: Plan
    orders: Sequence[Order]
    quiet: Scene
    chaos: Scene
    book: Book
    stage: Stage
    downloads: Path
    kills: int = 0
    terms: int = 0
    misses: int = 0
    """Blows at workers that held nothing with a checkpoint at that very moment; they count for nothing."""
    exit_seconds: list[float] = field(default_factory=list)
    in_flight_at_kill: list[int] = field(default_factory=list)
    most_in_flight_of_a_job: int = 0
    published: dict[str, Order] = field(default_factory=dict)
    worker_starts: int = 0
    quiet_seconds: float = 0.0
    chaos_seconds: float = 0.0
    orphans: list[str] = field(default_factory=list)


@asynccontextmanager
async def campaign(plan: Plan, folder: Path, pubsub: str | None = None) -> AsyncIterator[Result]:
    """Run it in a fresh folder; the servers are there until the block ends, so that what is left can be looked at.

    `pubsub` is `host:port` of a server to use instead of the embedded one.
    """
    rng = random.Random(plan.seed)
    media = MediaKit.at(folder)
    audio = await asyncio.to_thread(recordings, media, plan.recordings, plan.longest_seconds)
    made = orders(rng, audio, good=plan.good, bad=plan.bad)
    dice = [Dice(rng=random.Random(rng.random()), otherwise=plan.odds) for _ in range(2)]
    async with stage(folder, dice[0], dice[1], pubsub) as on:
        await on.upload(audio)
        result = Result(
            plan=plan,
            orders=made,
            quiet=await on.scene(f"quiet-{plan.seed}"),
            chaos=await on.scene(f"chaos-{plan.seed}"),
            book=Book(),
            stage=on,
            downloads=folder / "downloads",
        )
        result.downloads.mkdir()
        servers = descendants()
        await _quiet_run(result, folder)
        await _chaos_run(result, folder, rng)
        result.orphans = [command for pid, command in descendants().items() if pid not in servers]
        yield result


async def _quiet_run(result: Result, folder: Path) -> None:
    began, scene = time.monotonic(), result.quiet
    environment = scene.environment(result.stage.plain["pubsub"], result.stage.plain["storage"])
    environment |= {"PARAKEET_MODEL_NAME": "null", "TEMP_DIR": str(result.downloads)}
    async with fleet(folder / "quiet", environment) as quiet, scene.followed():
        worker = quiet.start()
        await scene.publish(*result.orders)
        await eventually(lambda: asyncio.sleep(0, scene.outcome.ended == len(result.orders)), MOST_SECONDS)
        await quiet.stop(worker)
    result.quiet_seconds = time.monotonic() - began


async def _chaos_run(result: Result, folder: Path, rng: random.Random) -> None:
    began, scene, plan = time.monotonic(), result.chaos, result.plan
    environment = scene.environment(result.stage.pubsub, result.stage.storage)
    environment |= {"PARAKEET_MODEL_NAME": f"null:{plan.speed}x", "TEMP_DIR": str(result.downloads)}
    async with fleet(folder / "chaos", environment) as workers, scene.followed(), _told(result):
        result.book = workers.book
        for _ in range(plan.workers):
            workers.start()
        async with asyncio.TaskGroup() as group:
            group.create_task(_publish(result, random.Random(rng.random())), name="publisher")
            group.create_task(_Havoc(result, workers, random.Random(rng.random())).wreak(), name="havoc")
        await eventually(lambda: asyncio.sleep(0, _all_ended(result)), MOST_SECONDS)
        await _settled(result)
        await asyncio.gather(*map(workers.ready, workers.members))
        result.exit_seconds += await asyncio.gather(*map(workers.stop, list(workers.members)))
        result.worker_starts = workers.starts
    result.chaos_seconds = time.monotonic() - began


async def _publish(result: Result, rng: random.Random) -> None:
    """Every order once, some twice, at random moments."""
    orders = list(result.orders)
    orders += [order for order in orders if rng.random() < result.plan.duplicates]
    moments = sorted((rng.uniform(0, result.plan.publish_seconds), number) for number in range(len(orders)))
    began = time.monotonic()
    for moment, number in moments:
        await asyncio.sleep(max(0.0, moment - (time.monotonic() - began)))
        (message_id,) = await result.chaos.publish(orders[number])
        result.published[message_id] = orders[number]


class _Havoc:
    """Kills and stops workers that hold a checkpointed job, at random moments, until there were enough."""

    def __init__(self, result: Result, workers: Fleet, rng: random.Random) -> None:
        self._result, self._workers, self._rng = result, workers, rng

    async def wreak(self) -> None:
        async with asyncio.TaskGroup() as stopping:
            while blows := self._blows_left():
                await asyncio.sleep(self._rng.uniform(*self._result.plan.seconds_between_blows))
                victim = await self._victim()
                if victim is None:
                    return
                if self._rng.choice(blows) == "kill":
                    self._kill(victim)
                    self._workers.start()
                else:
                    victim.stopping = True
                    self._result.terms += 1
                    stopping.create_task(self._stop(victim), name=f"stop-{victim.number}")

    def _blows_left(self) -> list[str]:
        plan, done = self._result.plan, self._result
        return ["kill"] * (plan.kills - done.kills) + ["term"] * (plan.terms - done.terms)

    async def _victim(self) -> Member | None:
        """A worker that is worth it; none once all jobs have ended."""
        while not (found := [member for member in self._workers.members if member.holds_checkpoint]):
            if _all_ended(self._result):
                return None
            await asyncio.sleep(LOOK_SECONDS)
        return self._rng.choice(found)

    def _kill(self, victim: Member) -> None:
        before = self._result.book.interrupted["kill -9"]
        if self._workers.kill(victim):
            self._result.kills += 1
        else:
            self._result.misses += 1
        self._result.in_flight_at_kill.append(self._result.book.interrupted["kill -9"] - before)
        self._note(victim)

    async def _stop(self, victim: Member) -> None:
        self._result.exit_seconds.append(await self._workers.stop(victim))
        self._note(victim)
        self._workers.start()

    def _note(self, victim: Member) -> None:
        most = max(self._result.most_in_flight_of_a_job, victim.log.most_in_flight)
        self._result.most_in_flight_of_a_job = most


def _all_ended(result: Result) -> bool:
    outcome, orders = result.chaos.outcome, result.orders
    published = len({order.data for order in result.published.values()}) == len(orders)
    return published and outcome.ended >= len(orders)


async def _settled(result: Result) -> None:
    """Wait until every message was settled. One whose ack came through without a trace in a log cannot be waited for:
    where nothing is delivered for longer than a lease and its backoff, nothing is left."""
    quiet_for = ACK_DEADLINE_SECONDS + MAX_BACKOFF_SECONDS + 2
    seen, since = 0, time.monotonic()

    async def over() -> bool:
        nonlocal seen, since
        received = result.book.received.total()
        if received != seen:
            seen, since = received, time.monotonic()
        return set(result.published) <= set(result.book.settled) or time.monotonic() - since > quiet_for

    await eventually(over, MOST_SECONDS)


@asynccontextmanager
async def _told(result: Result) -> AsyncIterator[None]:
    """Say on stderr how far it is, now and then."""

    async def tell() -> None:
        began, plan = time.monotonic(), result.plan
        while True:
            await asyncio.sleep(TELL_SECONDS)
            Console(stderr=True).print(
                f"{time.monotonic() - began:5.0f} s: {result.chaos.outcome.ended} of {len(result.orders)} jobs ended, "
                f"{result.kills} of {plan.kills} kills, {result.terms} of {plan.terms} stops"
            )

    async with asyncio.TaskGroup() as group:
        telling = group.create_task(tell(), name="tell")
        yield
        telling.cancel()
