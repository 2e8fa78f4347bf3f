"""The servers of a campaign, with faulty networks in front of them, and the pipeline's side of it."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from schemas.dead_letter import DeadLetter, parse_dead_letter
from schemas.events import CompletedEvent, CostEvent, Event, FailedEvent, parse_event
from tests.chaos.dice import Dice
from tests.chaos.gcs_proxy import gcs_proxy
from tests.chaos.grpc_proxy import grpc_proxy
from tests.chaos.orders import Order, Recording
from tests.support.queues.pubsub_server import Server, connected, let_it_pass
from tests.support.services.gcs import store_at
from tests.support.wait import STEP_SECONDS
from worker.adapters.gcs import GcsObjectStore
from worker.embedded.gcs import EmbeddedGcs
from worker.embedded.local_cloud import (
    AUDIO_BUCKET,
    COMPLETION_SUBSCRIPTION,
    COMPLETION_TOPIC,
    DEAD_LETTER_TOPIC,
    JOBS_SUBSCRIPTION,
    JOBS_TOPIC,
)
from worker.embedded.own_thread import in_thread
from worker.embedded.pubsub import EmbeddedPubSub
from worker.embedded.pubsub.provision import SubscriptionPlan, provision
from worker.ports import ObjectRef

ACK_DEADLINE_SECONDS = 10
MIN_BACKOFF_SECONDS = 1
MAX_BACKOFF_SECONDS = 10


@dataclass(kw_only=True)
class Outcome:
    """All published messages by distinct ids; duplicates are only counted."""

    completed: defaultdict[str | None, set[str]] = field(default_factory=lambda: defaultdict(set))
    failed: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Event ids of completed events by job id; of failed events by the dead letter they refer to."""
    failed_runs: defaultdict[str | None, set[int]] = field(default_factory=lambda: defaultdict(set))
    cost: defaultdict[str | None, set[str]] = field(default_factory=lambda: defaultdict(set))
    messages: int = 0

    @property
    def distinct(self) -> int:
        """Number of distinct events."""
        said = (*self.completed.values(), *self.failed.values(), *self.cost.values())
        return sum(map(len, said))

    @property
    def ended(self) -> int:
        """Number of ended jobs."""
        return len(self.completed) + len(self.failed)

    def take(self, event: Event) -> None:
        """Note an event."""
        self.messages += 1
        match event:
            case CompletedEvent():
                self.completed[event.job.job_id].add(event.event_id)
            case FailedEvent():
                self.failed[event.error.support_reference].add(event.event_id)
                self.failed_runs[event.job.job_id].add(event.run)
            case CostEvent():
                self.cost[event.job.job_id].add(event.event_id)


class Scene:
    """One project on the servers, with buckets of its own for output and state."""

    def __init__(self, name: str, root: Path, pubsub: Server, store: GcsObjectStore) -> None:
        self.name, self.outcome = name, Outcome()
        self.output_bucket, self.state_bucket = f"{name}-output", f"{name}-state"
        self.root, self._pubsub, self._store = root, pubsub, store

    def environment(self, pubsub: str, storage: str) -> dict[str, str]:
        """For a worker that reaches Pub/Sub and Cloud Storage there."""
        return {
            "PUBSUB_EMULATOR_HOST": pubsub,
            "STORAGE_EMULATOR_HOST": storage,
            "PROJECT_ID": self.name,
            "JOBS_TOPIC": JOBS_TOPIC,
            "JOBS_SUBSCRIPTION": JOBS_SUBSCRIPTION,
            "COMPLETION_TOPIC": COMPLETION_TOPIC,
            "DEAD_LETTER_TOPIC": DEAD_LETTER_TOPIC,
            "DEAD_LETTER_SUBSCRIPTION": DEAD_LETTER_TOPIC,
            "OUTPUT_BUCKET": self.output_bucket,
            "STATE_BUCKET": self.state_bucket,
            "INPUT_BUCKETS": AUDIO_BUCKET,
        }

    async def publish(self, *orders: Order) -> list[str]:
        """Submit them; the message ids."""
        return await self._pubsub.publish(self._path("topics", JOBS_TOPIC), *(order.data for order in orders))

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[None]:
        """Read events for the length of the block."""
        async with asyncio.TaskGroup() as group:
            following = group.create_task(self._follow(), name=f"follow-{self.name}")
            yield
            following.cancel()

    async def take_events(self) -> list[bytes]:
        """Pull and acknowledge everything on the completion topic's subscription."""
        subscription = self._path("subscriptions", COMPLETION_SUBSCRIPTION)
        received = await self._pubsub.pull_now(subscription, 500)
        if received:
            await self._pubsub.ack(subscription, *(one.ack_id for one in received))
        return [one.message.data for one in received]

    async def _follow(self) -> None:
        while True:
            for data in await self.take_events():
                self.outcome.take(parse_event(data))
            await asyncio.sleep(STEP_SECONDS)

    async def dead_letters(self) -> list[DeadLetter]:
        """All that lie there, held until their lease runs out."""
        found: list[DeadLetter] = []
        while received := await self._pubsub.pull_now(self._path("subscriptions", DEAD_LETTER_TOPIC), 1000):
            found += [parse_dead_letter(one.message.data) for one in received]
        return found

    async def jobs_left(self) -> int:
        """Messages of jobs that would be delivered now."""
        return len(await self._pubsub.pull_now(self._path("subscriptions", JOBS_SUBSCRIPTION)))

    async def state(self, prefix: str) -> list[str]:
        """Names of state objects."""
        return [facts.ref.name for facts in await self._store.list(self.state_bucket, prefix)]

    def artefacts(self) -> dict[str, bytes]:
        """Every object of the output bucket, by name."""
        folder = self.root / self.output_bucket
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def _path(self, collection: str, name: str) -> str:
        return f"projects/{self.name}/{collection}/{name}"


@dataclass(kw_only=True)
class Stage:
    """Running servers. `pubsub` and `storage` are the doors with faults, `plain` the ones without."""

    pubsub_dice: Dice
    storage_dice: Dice
    pubsub: str
    storage: str
    plain: Mapping[str, str]
    root: Path
    server: Server
    store: GcsObjectStore
    gcs: EmbeddedGcs

    async def scene(self, name: str, **backoff: int) -> Scene:
        """A fresh project; `backoff` are `min_backoff_seconds` and `max_backoff_seconds` of its jobs."""
        scene = Scene(name, self.root, self.server, self.store)
        self.gcs.create_buckets([scene.output_bucket, scene.state_bucket])
        await provision(self.server.target, name, *_plans(**backoff))
        return scene

    async def upload(self, recordings: Iterable[Recording]) -> None:
        """Put audio where the jobs look for it."""
        for one in recordings:
            await self.store.write(ObjectRef(AUDIO_BUCKET, one.name), one.content, content_type="audio/mpeg")


@asynccontextmanager
async def stage(root: Path, pubsub_dice: Dice, storage_dice: Dice, pubsub: str | None = None) -> AsyncIterator[Stage]:
    """Start the servers below `root`, and proxies in front; `pubsub` is `host:port` of a server to use instead."""
    async with AsyncExitStack() as stack:
        target = pubsub or stack.enter_context(in_thread(EmbeddedPubSub())).target
        gcs = stack.enter_context(EmbeddedGcs(root / "gcs"))
        gcs.create_buckets([AUDIO_BUCKET])
        yield Stage(
            pubsub_dice=pubsub_dice,
            storage_dice=storage_dice,
            pubsub=await stack.enter_async_context(grpc_proxy(target, pubsub_dice)),
            storage=(await stack.enter_async_context(gcs_proxy(gcs.url, storage_dice))).url,
            plain={"pubsub": target, "storage": gcs.url},
            root=root / "gcs",
            server=await stack.enter_async_context(connected(target, let_it_pass)),
            store=await stack.enter_async_context(store_at(gcs.url)),
            gcs=gcs,
        )


def _plans(
    min_backoff_seconds: int = MIN_BACKOFF_SECONDS, max_backoff_seconds: int = MAX_BACKOFF_SECONDS
) -> list[SubscriptionPlan]:
    jobs = SubscriptionPlan(
        name=JOBS_SUBSCRIPTION,
        topic=JOBS_TOPIC,
        ack_deadline_seconds=ACK_DEADLINE_SECONDS,
        min_backoff_seconds=min_backoff_seconds,
        max_backoff_seconds=max_backoff_seconds,
        dead_letter_topic=DEAD_LETTER_TOPIC,
    )
    return [jobs, SubscriptionPlan(name=COMPLETION_SUBSCRIPTION, topic=COMPLETION_TOPIC)]
