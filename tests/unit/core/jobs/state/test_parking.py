import asyncio

import pytest

from tests.support.clock import FakeClock
from tests.support.state import FINGERPRINT, JOB, TTL, Bucket, completed
from worker.core.jobs.state.sightings import REMEMBERED, Sightings
from worker.errors import ClaimHeld


async def test_parking_ends_at_once_where_nobody_holds_the_job(bucket: Bucket) -> None:
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


async def test_a_claim_that_stands_still_for_the_ttl_is_stale(bucket: Bucket, clock: FakeClock) -> None:
    stopped = FakeClock()
    async with bucket.worker("a", stopped).claim(JOB, FINGERPRINT, 0):
        parked = asyncio.create_task(bucket.worker("b", clock).park(JOB))

        await clock.advance(TTL - 1)
        waiting = not parked.done()
        await clock.advance(TTL / 10 + 1)

        assert waiting
        assert parked.done()
        assert await parked == (await bucket.claim()).generation


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


async def test_a_claim_seen_to_stand_still_is_taken_at_a_later_delivery_without_parking(
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


def test_only_so_many_claims_are_remembered(clock: FakeClock) -> None:
    sightings = Sightings(clock, TTL)

    for number in range(REMEMBERED + 1):
        sightings.is_stale(f"job-{number}", 1, 0.0)

    assert not sightings.is_stale("job-0", 1, TTL)
    assert sightings.is_stale("job-2", 1, TTL)
