import asyncio

from tests.support.clock import FakeClock
from tests.support.state import FINGERPRINT, JOB, TTL, Bucket, completed


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
