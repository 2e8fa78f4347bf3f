"""A jobs room to test in: the real recipe over the in-memory twins."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from schemas.events import Event, ParakeetRates, parse_event
from worker.adapters.machine.clock import SystemClock
from worker.adapters.memory.audio import MemoryAudioDecoder, memory_audio
from worker.adapters.memory.recogniser import MemoryRecogniser
from worker.adapters.memory.store import MemoryObjectStore
from worker.core.costs.bill import Prices
from worker.core.costs.budget import PaidRecogniser
from worker.core.delivery.fitness import Fitness
from worker.core.jobs.attempt import JobAttempt, Jobs
from worker.core.jobs.audio_input import AudioIntake
from worker.core.jobs.board import Board
from worker.core.jobs.engine_trust import EngineTrust
from worker.core.jobs.output import OutputWriter
from worker.core.jobs.routing import RoutingPolicy
from worker.core.jobs.state import JobStates
from worker.core.jobs.tools import JobRules, JobTools
from worker.ports import SAMPLE_RATE_HZ, Clock, Delivery, ObjectRef, Pcm

PRICES = Prices(
    book_version="2026-11",
    rates=ParakeetRates(gpu_usd_per_second=0.001, vcpu_usd_per_second=0.0, gib_usd_per_second=0.0),
    vcpus=4,
    memory_gib=16,
    deepgram_usd_per_minute=0.0045,
)


class RecordingTopic:
    """Remembers what was published."""

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, Mapping[str, str]]] = []

    async def publish(self, data: bytes, attributes: Mapping[str, str], ordering_key: str = "") -> str:
        assert ordering_key == ""
        self.messages.append((data, attributes))
        return str(len(self.messages))


class OnlySlot:
    """A slot for one delivery; counts how often it was parked."""

    def __init__(self) -> None:
        self.parkings = 0

    @asynccontextmanager
    async def parked(self) -> AsyncIterator[None]:
        self.parkings += 1
        yield


class JobsRoom:
    """Everything a job needs, in memory; two rooms with one store are two workers."""

    def __init__(
        self,
        folder: Path,
        *,
        recogniser: MemoryRecogniser | None = None,
        store: MemoryObjectStore | None = None,
        deepgram: PaidRecogniser | None = None,
        claim_ttl_seconds: float = 5.0,
        board: Board | None = None,
        clock: Clock | None = None,
        decoder: MemoryAudioDecoder | None = None,
        **rules: Any,
    ) -> None:
        self.clock = clock or SystemClock()
        self.health = EngineTrust(self.clock)
        self.store = store or MemoryObjectStore(self.clock.now)
        self.completions, self.dead_letters = RecordingTopic(), RecordingTopic()
        self.folder, self.deepgram, self.board = folder, deepgram, board or Board()
        self.decoder = decoder or MemoryAudioDecoder(max_seconds=3600)
        self.states = JobStates(self.store, "state", self.clock, rules.get("worker", "worker-1"), claim_ttl_seconds)
        self.jobs = Jobs(self._tools(recogniser or MemoryRecogniser()), self._rules(**rules))

    def _tools(self, recogniser: MemoryRecogniser) -> JobTools:
        return JobTools(
            states=self.states,
            intake=AudioIntake(self.store, self.folder, input_buckets=frozenset({"audio"}), max_bytes=100_000_000),
            output=OutputWriter(self.store, output_bucket="out", writable_buckets=frozenset({"out"})),
            decoder=self.decoder,
            recogniser=recogniser,
            paid=self.deepgram,
            resources=Fitness((), self.clock, random.Random(1)),
            health=self.health,
            completions=self.completions,
            dead_letters=self.dead_letters,
            clock=self.clock,
            board=self.board,
        )

    @staticmethod
    def _rules(**rules: Any) -> JobRules:
        usual = {
            "worker": "worker-1",
            "subscription": "jobs",
            "routing": RoutingPolicy(),
            "prices": PRICES,
            "chunk_seconds": 20.0,
            "chunks_in_flight": 2,
            "max_crashes": 10,
        }
        return JobRules(**{**usual, **rules})

    async def upload(self, samples: Pcm, name: str = "a.pcm") -> None:
        await self.store.write(ObjectRef("audio", name), memory_audio(samples), content_type="audio/x-memory")

    def attempt(
        self,
        *,
        data: bytes | None = None,
        run: str | None = None,
        attributes: Mapping[str, str] | None = None,
        publish_time: datetime = datetime(2026, 11, 22, 9, 59, tzinfo=UTC),
        **fields: Any,
    ) -> JobAttempt:
        """The next delivery of a job message."""
        job = {"job_id": "job-1", "video_id": "vod", "audio_uri": "gs://audio/a.pcm", **fields}
        return self.jobs.attempt(
            Delivery(
                ack_id="ack",
                message_id="m1",
                data=json.dumps(job).encode() if data is None else data,
                attributes={**(attributes or {}), **({} if run is None else {"run": run})},
                publish_time=publish_time,
            )
        )

    @property
    def events(self) -> list[Event]:
        return [parse_event(data) for data, _ in self.completions.messages]

    @property
    def artefacts(self) -> dict[str, bytes]:
        return {ref.name: data for ref, (data, _) in self.store._objects.items() if ref.bucket == "out"}

    @property
    def files(self) -> list[Path]:
        """Return the names of files in the folder for downloads."""
        return list(self.folder.iterdir())

    @property
    def state(self) -> list[str]:
        return sorted(ref.name for ref in self.store._objects if ref.bucket == "state")


def speech(seconds: float, seed: int = 1) -> Pcm:
    """Bursts of noise of 0.3 s with pauses of 0.2 s, every tenth one of 1 s: for the twin, words and sentences."""
    rng = np.random.default_rng(seed)
    samples = np.zeros(int(seconds * SAMPLE_RATE_HZ), np.int16)
    position = 0.2
    for number in range(1, 10_000):
        start, end = (round(at * SAMPLE_RATE_HZ) for at in (position, position + 0.3))
        if end > len(samples):
            break
        samples[start:end] = rng.integers(-8000, 8000, end - start, dtype=np.int16)
        position += 1.3 if number % 10 == 0 else 0.5
    return samples


async def never(_samples: Pcm, _job_id: str) -> None:
    """Script of a recogniser that blocks every window."""
    await asyncio.Event().wait()
