"""A whole worker on the in-memory twins, whose services fail as a test says: the real recipe, consumer and fitness."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from schemas.events import Event, FailedEvent, parse_event
from tests.support.clock import FastClock
from tests.support.jobs.harness import PRICES, speech
from tests.support.services.faulty import FaultyStore, FaultySubscription, FaultyTopic
from tests.support.wait import eventually
from worker.adapters.memory.audio import MemoryAudioDecoder, memory_audio
from worker.adapters.memory.pubsub import MemoryPubSub
from worker.adapters.memory.recogniser import MemoryRecogniser
from worker.app.parts import audio_part, bucket_parts, machine_parts
from worker.core.delivery.consumer import Consumer
from worker.core.delivery.fitness import Fitness, Part
from worker.core.delivery.intake import UrgentFirst
from worker.core.jobs.attempt import Jobs
from worker.core.jobs.audio_input import AudioIntake
from worker.core.jobs.engine_trust import EngineTrust
from worker.core.jobs.output import OutputWriter
from worker.core.jobs.routing import RoutingPolicy
from worker.core.jobs.state import JobStates
from worker.core.jobs.tools import JobRules, JobTools
from worker.ports import ObjectRef, Pcm
from worker.settings import CloudSettings

MAX_ATTEMPTS, MAX_CRASHES = 3, 4
JOBS, COMPLETIONS, DEAD_LETTERS = "jobs", "completions", "dead-letters"


class TwinWorker:
    """One worker, its buckets and its queues."""

    def __init__(
        self, folder: Path, *, input_buckets: frozenset[str] = frozenset({"audio"}), urgent_first: bool = False
    ) -> None:
        self.clock = FastClock()
        self.folder = folder / "worker"
        self.folder.mkdir(mode=0o700)
        self.broker = MemoryPubSub(self.clock)
        for name in (JOBS, COMPLETIONS, DEAD_LETTERS):
            self.broker.create_topic(name)
            self.broker.create_subscription(f"{name}-worker", topic=name, ack_deadline_seconds=60, nack_delay_seconds=1)
        self.store = FaultyStore(self.clock.now)
        self.completions = FaultyTopic(self.broker.topic(COMPLETIONS))
        self.dead_letters = FaultyTopic(self.broker.topic(DEAD_LETTERS))
        self.subscription = FaultySubscription(self.broker.subscription(f"{JOBS}-worker"))
        self.broker.create_subscription(f"{JOBS}-urgent", topic=JOBS, attribute=("priority", "urgent"))
        urgent = self.broker.subscription(f"{JOBS}-urgent")
        self.both = UrgentFirst(urgent, self.subscription, self.clock, random.Random(1))
        self.windows = Counter[str]()
        self.names = CloudSettings(
            output_bucket="out",
            state_bucket="state",
            output_buckets=frozenset({"out", "other"}),
            input_buckets=input_buckets,
        )
        self.fitness = Fitness(self._parts(), self.clock, random.Random(1))
        self.consumer = Consumer(
            self.both if urgent_first else self.subscription,
            Jobs(self._tools(), self._rules()),
            slots=2,
            max_parked=2,
            ack_deadline_seconds=60,
            max_attempts=MAX_ATTEMPTS,
            fitness=self.fitness,
            fuse_threshold=10,
            clock=self.clock,
            rng=random.Random(1),
            chores={"urgent": self.both.tend},
        )

    def _parts(self) -> list[Part]:
        topics = [Part(name=topic.path, resource=topic.path, probe=topic.verify) for topic in self.topics]
        return [*machine_parts(self.folder), *bucket_parts(self.names, self.store), *topics]

    @property
    def topics(self) -> tuple[FaultyTopic, FaultyTopic]:
        return self.completions, self.dead_letters

    def _tools(self) -> JobTools:
        return JobTools(
            states=JobStates(self.store, "state", self.clock, "worker-1", 30.0),
            intake=AudioIntake(
                self.store,
                self.folder,
                input_buckets=frozenset(),
                max_bytes=100_000_000,
                on_read=lambda bucket: self.fitness.add(audio_part(self.store, bucket, is_learned=True)),
            ),
            output=OutputWriter(self.store, output_bucket="out", writable_buckets=frozenset({"out", "other"})),
            decoder=MemoryAudioDecoder(max_seconds=3600),
            recogniser=MemoryRecogniser(script=self._count),
            paid=None,
            resources=self.fitness,
            health=EngineTrust(self.clock),
            completions=self.completions,
            dead_letters=self.dead_letters,
            clock=self.clock,
        )

    async def _count(self, _samples: Pcm, job_id: str) -> None:
        self.windows[job_id] += 1
        await asyncio.sleep(0)

    @staticmethod
    def _rules() -> JobRules:
        return JobRules(
            worker="worker-1",
            subscription=JOBS,
            routing=RoutingPolicy(),
            prices=PRICES,
            chunk_seconds=20.0,
            chunks_in_flight=2,
            max_crashes=MAX_CRASHES,
        )

    async def upload(self, bucket: str = "audio", name: str = "a.pcm") -> None:
        await self.store.write(ObjectRef(bucket, name), memory_audio(speech(3)), content_type="audio/x-memory")

    def publish(self, name: str, **fields: Any) -> None:
        """Queue a job; it is good unless `fields` say otherwise."""
        job = {"job_id": name, "video_id": name, "audio_uri": "gs://audio/a.pcm", **fields}
        attributes = {"priority": "urgent"} if fields.get("priority") == "urgent" else {}
        self.broker.publish(JOBS, json.dumps(job).encode(), attributes, "")

    def unsettled(self, name: str = JOBS) -> int:
        return len(self.broker.queue(f"{name}-worker").held)

    @property
    def events(self) -> list[Event]:
        return [parse_event(held.delivery.data) for held in self.broker.queue(f"{COMPLETIONS}-worker").held]

    def completed(self) -> set[str | None]:
        """The ids of jobs that have a completed event."""
        return {event.job.job_id for event in self.events if event.event_type == "transcription.completed"}

    def failed(self) -> dict[str | None, str]:
        """The messages of failed events by job id."""
        return {event.job.job_id: event.error.error_message for event in self.events if isinstance(event, FailedEvent)}

    async def counted(self) -> dict[str, tuple[int, int]]:
        """Return (attempts, crashes) of every job that has a claim object."""
        found = {}
        for ref, (data, _) in self.store._objects.items():
            if ref.bucket == "state" and ref.name.startswith("claims/"):
                record = json.loads(data)
                found[record["job_id"]] = (record["failures"], record["crashes"])
        return found

    @property
    def why_unready(self) -> str:
        """Return the reason why no message is pulled, as in `/health`."""
        snapshot = self.consumer.snapshot
        return snapshot.intake_stopped_because or snapshot.pull_failure

    async def until(self, condition: Any) -> None:
        async def holds() -> bool:
            return bool(condition())

        await eventually(holds)


@asynccontextmanager
async def twin_worker(folder: Path, **settings: Any) -> AsyncIterator[TwinWorker]:
    """A worker that takes messages for the length of the block."""
    worker = TwinWorker(folder, **settings)
    await worker.upload()
    run = asyncio.create_task(worker.consumer.run(), name="consumer")
    try:
        yield worker
    finally:
        worker.consumer.stop("end of test")
        worker.consumer.stop("end of test")
        await asyncio.wait([run])
