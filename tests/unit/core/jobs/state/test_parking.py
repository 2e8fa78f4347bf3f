import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog

from tests.support.clock import FakeClock
from tests.support.jobs.state import BUCKET, FINGERPRINT, JOB, TTL, Bucket, completed
from worker.core.jobs.state import JobStates
from worker.core.jobs.state.claims import FRESH_SECONDS, REMEMBERED, BucketTime, Sightings
from worker.core.jobs.state.states import BUCKET_TIME_MARGIN_SECONDS
from worker.errors import ClaimHeld
from worker.ports import ObjectFacts, ObjectRef


async def test_parking_ends_at_once_if_the_job_is_not_held(bucket: Bucket) -> None:
    assert await bucket.worker("b").park(JOB) is None


async def test_parking_ends_soon_after_the_holder_releases(bucket: Bucket, clock: FakeClock) -> None:
    async with bucket.worker("a", clock).claim(JOB, FINGERPRINT, 0):
        parked = asyncio.create_task(bucket.worker("b", clock).park(JOB))
        await clock.advance(4 * TTL)
        waiting = not parked.done()
    await clock.advance(TTL / 10)

    assert waiting
    assert parked.done()
    assert await parked is None


async def test_parking_ends_soon_after_the_job_is_concluded(bucket: Bucket, clock: FakeClock) -> None:
    async with bucket.worker("a", clock).claim(JOB, FINGERPRINT, 0) as claim:
        parked = asyncio.create_task(bucket.worker("b", clock).park(JOB))
        await clock.rest()
        await claim.conclude(completed())
    await clock.advance(TTL / 10)

    assert parked.done()
    assert await parked is None


async def test_a_claim_without_heartbeats_for_the_ttl_is_stale(bucket: Bucket, clock: FakeClock) -> None:
    stopped = FakeClock()
    async with bucket.worker("a", stopped).claim(JOB, FINGERPRINT, 0):
        parked = asyncio.create_task(bucket.worker("b", clock).park(JOB))

        await clock.advance(TTL - 1)
        waiting = not parked.done()
        await clock.advance(TTL / 10 + 1)

        assert waiting
        assert parked.done()
        assert await parked == (await bucket.claim()).generation


async def test_a_worker_of_a_shorter_ttl_does_not_take_the_claim_of_a_live_worker_of_a_longer_one(
    bucket: Bucket, clock: FakeClock
) -> None:
    longer = JobStates(bucket.store, BUCKET, clock, "a", 6 * TTL)
    shorter = bucket.worker("b", clock)
    async with longer.claim(JOB, FINGERPRINT, 0) as claim:
        parked = asyncio.create_task(shorter.park(JOB))
        await clock.advance(20 * TTL)

        assert not parked.done()
        assert not claim.lost.is_set()
        parked.cancel()


async def test_one_late_heartbeat_starts_the_wait_anew(bucket: Bucket, clock: FakeClock) -> None:
    slow = FakeClock()
    async with bucket.worker("a", slow).claim(JOB, FINGERPRINT, 0) as claim:
        parked = asyncio.create_task(bucket.worker("b", clock).park(JOB))
        await clock.advance(TTL - 1)
        await claim.verify()

        await clock.advance(TTL - 1)

        assert not parked.done()
        parked.cancel()
        await asyncio.gather(parked, return_exceptions=True)


async def test_what_parking_returns_is_what_claiming_takes(bucket: Bucket, clock: FakeClock) -> None:
    async with bucket.worker("a", FakeClock()).claim(JOB, FINGERPRINT, 0):
        second = bucket.worker("b", clock)
        parked = asyncio.create_task(second.park(JOB))
        await clock.advance(2 * TTL)

        async with second.claim(JOB, FINGERPRINT, 0, stale_generation=await parked) as claim:
            assert claim.record.owner == "b"


async def test_a_claim_seen_without_heartbeats_is_taken_at_a_later_delivery_without_parking(
    bucket: Bucket, clock: FakeClock
) -> None:
    async with bucket.worker("a", FakeClock()).claim(JOB, FINGERPRINT, 0):
        second = bucket.worker("b", clock)
        for passed in (0, TTL - 1):
            await clock.advance(passed)
            with pytest.raises(ClaimHeld):
                async with second.claim(JOB, FINGERPRINT, 0):
                    pytest.fail("its owner may live")
        await clock.advance(1)

        async with second.claim(JOB, FINGERPRINT, 0) as claim:
            assert claim.record.owner == "b"


async def test_a_claim_seen_to_move_between_two_deliveries_is_not_taken(bucket: Bucket, clock: FakeClock) -> None:
    async with bucket.worker("a", FakeClock()).claim(JOB, FINGERPRINT, 0) as first:
        second = bucket.worker("b", clock)
        for _ in range(3):
            with pytest.raises(ClaimHeld):
                async with second.claim(JOB, FINGERPRINT, 0):
                    pytest.fail("its owner lives")
            await first.verify()
            await clock.advance(TTL)


async def test_a_dead_workers_claim_is_taken_at_the_first_look_of_a_worker_that_never_saw_it(
    bucket: Bucket, clock: FakeClock
) -> None:
    async with bucket.worker("a", FakeClock()).claim(JOB, FINGERPRINT, 0):
        await clock.advance(TTL + BUCKET_TIME_MARGIN_SECONDS)

        with structlog.testing.capture_logs() as events:
            async with bucket.worker("b", clock).claim(JOB, FINGERPRINT, 0) as claim:
                assert claim.record.owner == "b"

    (told,) = (event for event in events if event["event"] == "claim.taken_over")
    assert (told["taken_from"], told["stood_still_seconds"]) == ("a", TTL)
    assert not [name for name in await bucket.names() if name.startswith("stamps/")]


@pytest.mark.parametrize("hours", [-48, 3])
async def test_a_wrong_wall_clock_makes_nobodys_claim_stale(bucket: Bucket, clock: FakeClock, hours: int) -> None:
    elsewhere = FakeClock(datetime(2026, 11, 22, 10, tzinfo=UTC) + timedelta(hours=hours))
    async with bucket.worker("a", FakeClock()).claim(JOB, FINGERPRINT, 0):
        await clock.advance(TTL - 1)

        with pytest.raises(ClaimHeld):
            async with bucket.worker("b", elsewhere).claim(JOB, FINGERPRINT, 0):
                pytest.fail("its owner may live")


async def test_parking_lasts_only_for_what_is_left_of_the_ttl(bucket: Bucket, clock: FakeClock) -> None:
    async with bucket.worker("a", FakeClock()).claim(JOB, FINGERPRINT, 0):
        await clock.advance(TTL - 5)
        parked = asyncio.create_task(bucket.worker("b", clock).park(JOB))
        await clock.advance(3)
        waiting = not parked.done()
        await clock.advance(5)

        assert waiting
        assert parked.done()


async def test_a_worker_that_heartbeats_knows_the_buckets_time_and_writes_no_stamp(
    bucket: Bucket, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    write = bucket.store.write

    async def note(ref: ObjectRef, data: bytes, **options: Any) -> ObjectFacts:
        written.append(ref.name)
        return await write(ref, data, **options)

    monkeypatch.setattr(bucket.store, "write", note)
    second = bucket.worker("b", clock)

    async with bucket.worker("a", FakeClock()).claim(JOB, FINGERPRINT, 0), second.claim("other", FINGERPRINT, 0):
        await clock.advance(10 * FRESH_SECONDS)
        async with second.claim(JOB, FINGERPRINT, 0):
            pass

    assert not [name for name in written if name.startswith("stamps/")]


def test_the_buckets_time_is_not_guessed_from_an_old_stamp(clock: FakeClock) -> None:
    time = BucketTime(clock)
    before = time.at_least()
    time.learn(clock.now())
    clock._seconds = FRESH_SECONDS
    fresh = time.at_least()
    clock._seconds += 1

    assert before is None
    assert fresh == clock.now() - timedelta(seconds=1)
    assert time.at_least() is None


def test_the_number_of_remembered_claims_is_limited(clock: FakeClock) -> None:
    sightings = Sightings(clock)

    for number in range(REMEMBERED + 1):
        sightings.stood_still_seconds(f"job-{number}", 1, 0.0)

    assert sightings.stood_still_seconds("job-0", 1, TTL) == 0
    assert sightings.stood_still_seconds("job-2", 1, TTL) == TTL
