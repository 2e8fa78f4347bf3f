"""Support of job state tests: workers on one bucket, each with its own clock, and objects to store."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count

from schemas.codes import ErrorCode
from schemas.speech import WindowSpan, WindowTranscript, Word
from schemas.state import Checkpoint, ClaimRecord, ResultMarker, StoredMessage
from tests.support.clock import FakeClock
from worker.adapters.memory.store import MemoryObjectStore
from worker.core.jobs.state import JobStates
from worker.core.jobs.state.files import StateFiles, Stored
from worker.errors import StorageServiceError
from worker.ports import ObjectFacts, ObjectRef, ObjectStore

BUCKET = "state-bucket"
TTL = 30.0
JOB, FINGERPRINT = "job-1", "fp-1"


class Bucket:
    """A state bucket and the workers that share it."""

    def __init__(self, store: ObjectStore | None = None, clock: FakeClock | None = None) -> None:
        self.store = store or MemoryObjectStore((clock or FakeClock()).now)
        self.files = StateFiles(store=self.store, bucket=BUCKET)
        self._ids = count(1)

    def worker(self, owner: str, clock: FakeClock | None = None, store: ObjectStore | None = None) -> JobStates:
        return JobStates(
            store or self.store, BUCKET, clock or FakeClock(), owner, TTL, new_id=lambda: f"id-{next(self._ids)}"
        )

    async def claim(self) -> Stored[ClaimRecord]:
        return await self.files.load(self.files.claim(JOB), ClaimRecord)

    async def names(self) -> list[str]:
        return [facts.ref.name for facts in await self.store.list(BUCKET, "")]


def failed(run: int = 0, fingerprint: str = FINGERPRINT) -> ResultMarker:
    return marker("failed", run=run, fingerprint=fingerprint, code=ErrorCode.AUDIO_NOT_FOUND)


def completed(run: int = 0, fingerprint: str = FINGERPRINT) -> ResultMarker:
    return marker("completed", run=run, fingerprint=fingerprint)


def marker(outcome: str, **fields: object) -> ResultMarker:
    message = StoredMessage(topic="completion", data='{"ä": 1}', attributes={"ce-id": "1"})
    at = datetime(2026, 11, 22, tzinfo=UTC)
    return ResultMarker.model_validate(
        {"job_id": JOB, "outcome": outcome, "messages": (message,), "concluded_at": at, **fields}
    )


def checkpoint(index: int = 0, words: int = 3) -> Checkpoint:
    spoken = tuple(Word(f"word{n}", 0.1234567 * n, 0.1234567 * n + 0.1, 0.987) for n in range(words))
    return Checkpoint(
        index=index,
        start_sample=0,
        end_sample=16_000 * 30,
        engine="parakeet",
        windows=(WindowTranscript(WindowSpan(0, 16_000 * 30), spoken),),
        engine_seconds=1.5,
        audio_seconds=30.0,
    )


class BrokenWrites(MemoryObjectStore):
    """A store whose writes fail while `broken`, and wait while the gate is closed."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        super().__init__(now)
        self.broken = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def write(
        self, ref: ObjectRef, data: bytes, *, content_type: str, if_generation: int | None = None
    ) -> ObjectFacts:
        await self.gate.wait()
        if self.broken:
            raise StorageServiceError("write", ref.uri, "broken")
        return await super().write(ref, data, content_type=content_type, if_generation=if_generation)
