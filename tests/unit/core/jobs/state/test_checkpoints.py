import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog

from schemas.codes import ErrorCode
from schemas.state import Checkpoint
from tests.support.clock import FakeClock
from tests.support.jobs.state import BUCKET, FINGERPRINT, JOB, TTL, Bucket, checkpoint, completed, failed
from worker.core.jobs.state import checkpoint_key
from worker.core.jobs.state.files import ABSENT
from worker.errors import ClaimLost
from worker.ports import ObjectFacts, ObjectRef, ObjectStore

AUDIO = ObjectFacts(
    ref=ObjectRef("input", "a.mp3"),
    generation=7,
    size_bytes=9,
    crc32c="AAAAAA==",
    created_at=datetime(2026, 11, 22, tzinfo=UTC),
)


async def test_a_checkpoint_is_found_again_by_the_next_worker_with_every_word(bucket: Bucket) -> None:
    saved = checkpoint(3).model_copy(update={"fallback_reason": ErrorCode.GPU_MEMORY_ERROR})
    async with bucket.worker("a").claim(JOB, FINGERPRINT, 0) as claim:
        await claim.checkpoints.save("key", saved)

    async with bucket.worker("b").claim(JOB, FINGERPRINT, 0) as claim:
        assert await claim.checkpoints.load("key", 3) == saved
        assert await claim.checkpoints.load("key", 2) is None
        assert await claim.checkpoints.load("other", 3) is None


async def test_the_first_checkpoint_of_a_claim_is_progress_at_once(bucket: Bucket) -> None:
    async with bucket.worker("a").claim(JOB, FINGERPRINT, 0) as claim:
        await claim.checkpoints.save("key", checkpoint(0))
        first = await bucket.claim()
        await claim.checkpoints.save("key", checkpoint(1))
        second = await bucket.claim()

    assert first.content
    assert first.content.progressed
    assert second.generation == first.generation


async def test_saving_what_is_there_already_changes_nothing_and_is_no_progress(bucket: Bucket) -> None:
    async with bucket.worker("a").claim(JOB, FINGERPRINT, 0) as claim:
        await claim.checkpoints.save("key", checkpoint(words=3))
    before = await bucket.store.list(BUCKET, "checkpoints/")

    async with bucket.worker("b").claim(JOB, FINGERPRINT, 0) as claim:
        await claim.checkpoints.save("key", checkpoint(words=3))

        assert not claim.record.progressed
    assert await bucket.store.list(BUCKET, "checkpoints/") == before


@pytest.mark.parametrize("content", [b"", b"not json", b"{}", checkpoint(5).model_dump_json().encode()])
async def test_what_is_not_a_checkpoint_of_that_chunk_is_logged_ignored_and_replaced(
    bucket: Bucket, content: bytes
) -> None:
    ref = bucket.files.checkpoint(JOB, "key", 0)
    await bucket.store.write(ref, content, content_type="text/plain")

    async with bucket.worker("a").claim(JOB, FINGERPRINT, 0) as claim:
        with structlog.testing.capture_logs() as events:
            found = await claim.checkpoints.load("key", 0)
        await claim.checkpoints.save("key", checkpoint(0))
        healed = await claim.checkpoints.load("key", 0)

    assert found is None
    assert [event["event"] for event in events] in (["state.unreadable"], ["checkpoint.foreign"])
    assert healed == checkpoint(0)


async def test_a_worker_that_lost_the_job_saves_no_checkpoint(bucket: Bucket) -> None:
    async with bucket.worker("a").claim(JOB, FINGERPRINT, 0) as claim:
        claim.lost.set()

        with pytest.raises(ClaimLost):
            await claim.checkpoints.save("key", checkpoint())

    assert await bucket.store.list(BUCKET, "checkpoints/") == []


async def test_clearing_removes_the_checkpoints_of_every_key_of_this_job_only(bucket: Bucket) -> None:
    async with bucket.worker("a").claim("job-10", FINGERPRINT, 0) as neighbour:
        await neighbour.checkpoints.save("k1", checkpoint())
    async with bucket.worker("a").claim(JOB, FINGERPRINT, 0) as claim:
        await claim.checkpoints.save("k1", checkpoint(0))
        await claim.checkpoints.save("k2", checkpoint(1))

        await claim.checkpoints.clear()

    assert [facts.ref.name for facts in await bucket.store.list(BUCKET, "checkpoints/")] == [
        "checkpoints/job-10/k1/00000.json"
    ]


async def test_all_checkpoints_are_those_of_every_key_without_their_words(bucket: Bucket) -> None:
    async with bucket.worker("a").claim(JOB, FINGERPRINT, 0) as claim:
        for key, index in (("one", 1), ("two", 0)):
            await claim.checkpoints.save(key, checkpoint(index))
    await bucket.store.write(
        ObjectRef(BUCKET, f"checkpoints/{JOB}/one/00002.json"), b"{", content_type="application/json"
    )

    async with bucket.worker("b").claim(JOB, FINGERPRINT, 0) as claim:
        found = await claim.checkpoints.all()

    assert [chunk.index for chunk in found] == [0, 1]
    assert all(chunk.windows == () for chunk in found)


async def test_the_checkpoints_of_a_new_job_are_listed_once(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[str] = []
    monkeypatch.setattr(bucket.store, "list", counting(listed, bucket.store.list))
    async with bucket.worker("a").claim(JOB, FINGERPRINT, 0) as claim:
        await claim.checkpoints.load("k1", 0)
        await claim.checkpoints.save("k1", checkpoint(0))

        await claim.checkpoints.clear()

    assert listed == [f"checkpoints/{JOB}/"]
    assert await bucket.store.list(BUCKET, "checkpoints/") == []


async def test_what_a_lost_worker_saved_too_late_is_cleared_by_the_next(bucket: Bucket) -> None:
    async with bucket.worker("a").claim(JOB, FINGERPRINT, 0) as first:
        await first.checkpoints.save("k1", checkpoint(0))
    async with bucket.worker("b").claim(JOB, FINGERPRINT, 0) as claim:
        await claim.checkpoints.load("k1", 0)
        await bucket.files.save(bucket.files.checkpoint(JOB, "k1", 1), checkpoint(1), if_generation=ABSENT)

        await claim.checkpoints.clear()

    assert await bucket.store.list(BUCKET, "checkpoints/") == []


class HeldCheckpoints:
    """Another worker's door to the same bucket: its checkpoint writes arrive once the gate is opened."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.begun, self.gate = asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def write(self, ref: ObjectRef, data: bytes, **options: Any) -> ObjectFacts:
        if ref.name.startswith("checkpoints/"):
            self.begun.set()
            await self.gate.wait()
        return await self._store.write(ref, data, **options)


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_a_stopped_workers_checkpoint_that_lands_after_the_job_was_completed_is_removed(
    bucket: Bucket, clock: FakeClock, is_cancelled: bool
) -> None:
    stopped, door = FakeClock(), HeldCheckpoints(bucket.store)
    async with bucket.worker("a", stopped, door).claim(JOB, FINGERPRINT, 0) as zombie:
        late = asyncio.create_task(zombie.checkpoints.save("key", checkpoint(0)))
        await door.begun.wait()
        await clock.advance(2 * TTL)
        async with bucket.worker("b", clock).claim(JOB, FINGERPRINT, 0) as claim:
            await claim.checkpoints.save("key", checkpoint(1))
            await claim.conclude(completed())
            await claim.checkpoints.clear()
        await stopped.advance(2 * TTL)
        if is_cancelled:
            late.cancel()

        door.gate.set()
        await asyncio.gather(late, return_exceptions=True)
        await clock.rest()

    assert await bucket.names() == ["results/job-1.json"]


async def test_a_checkpoint_that_lands_late_is_kept_while_the_job_is_not_completed(
    bucket: Bucket, clock: FakeClock
) -> None:
    stopped, door = FakeClock(), HeldCheckpoints(bucket.store)
    async with bucket.worker("a", stopped, door).claim(JOB, FINGERPRINT, 0) as zombie:
        late = asyncio.create_task(zombie.checkpoints.save("key", checkpoint(0)))
        await door.begun.wait()
        await clock.advance(2 * TTL)
        async with bucket.worker("b", clock).claim(JOB, FINGERPRINT, 0) as claim:
            await stopped.advance(2 * TTL)
            door.gate.set()
            with pytest.raises(ClaimLost):
                await late
            kept = await bucket.store.list(BUCKET, "checkpoints/")
            await claim.conclude(completed())
            await claim.checkpoints.clear()

    assert len(kept) == 1
    assert await bucket.names() == ["results/job-1.json"]


async def test_a_checkpoint_of_a_live_claim_costs_one_request(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bucket.worker("a").claim(JOB, FINGERPRINT, 0) as claim:
        await claim.checkpoints.save("key", checkpoint(0))
        read = []
        monkeypatch.setattr(bucket.store, "read", read.append)

        await claim.checkpoints.save("key", checkpoint(1))

    assert read == []


async def test_a_replayed_job_is_listed_again_for_its_claim_is_new_but_its_checkpoints_are_not(bucket: Bucket) -> None:
    async with bucket.worker("a").claim(JOB, FINGERPRINT, 0) as claim:
        await claim.checkpoints.save("k1", checkpoint(0))
        await claim.conclude(failed())

    async with bucket.worker("b").claim(JOB, FINGERPRINT, 1) as claim:
        assert not claim.is_first
        assert await claim.checkpoints.load("k1", 0) == checkpoint(0)


def counting(
    listed: list[str], lists: Callable[[str, str], Awaitable[Sequence[ObjectFacts]]]
) -> Callable[[str, str], Awaitable[Sequence[ObjectFacts]]]:
    async def counted(bucket: str, prefix: str) -> Sequence[ObjectFacts]:
        listed.append(prefix)
        return await lists(bucket, prefix)

    return counted


async def test_an_hour_of_fast_speech_stays_far_below_the_limit_of_one_request() -> None:
    hour = checkpoint(words=60 * 240)

    encoded = hour.model_dump_json().encode()

    assert len(encoded) < (8 << 20) / 4
    assert Checkpoint.model_validate_json(encoded) == hour


@pytest.mark.parametrize(
    "other",
    [
        {"audio": replace(AUDIO, generation=8)},
        {"audio": replace(AUDIO, crc32c="BBBBBB==")},
        {"model_fingerprint": "m2"},
        {"settings": {"chunk_duration_minutes": 5, "language": "en"}},
        {"settings": {"chunk_duration_minutes": 10}},
    ],
)
def test_a_checkpoint_key_changes_with_everything_the_words_depend_on(other: dict[str, object]) -> None:
    same = {"audio": AUDIO, "model_fingerprint": "m1", "settings": {"language": "en", "chunk_duration_minutes": 10}}

    key = checkpoint_key(**same)

    assert key == checkpoint_key(**{**same, "settings": {"chunk_duration_minutes": 10, "language": "en"}})
    assert key != checkpoint_key(**{**same, **other})
