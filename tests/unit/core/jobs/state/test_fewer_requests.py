"""Looks and writes that a claim leaves out, and what holds without them."""

from contextlib import AsyncExitStack

import pytest

from schemas.state import ResultMarker
from tests.support.clock import FakeClock
from tests.support.jobs.state import FINGERPRINT, JOB, TTL, Bucket, completed, failed
from worker.errors import ClaimHeld, ClaimLost


async def test_a_job_that_left_nothing_is_claimed_as_new_without_a_look_at_its_claim(bucket: Bucket) -> None:
    async with bucket.worker("a").claim(JOB, FINGERPRINT, 0, is_new=True) as claim:
        record = claim.record

        assert claim.is_first

    released = (await bucket.claim()).content
    assert (record.deliveries, record.crashes) == (1, 0)
    assert released
    assert (released.claim_id, released.held) == (record.claim_id, False)


@pytest.mark.parametrize("is_held", [True, False])
async def test_a_job_that_has_a_claim_is_not_claimed_as_new_and_keeps_it(bucket: Bucket, is_held: bool) -> None:
    async with AsyncExitStack() as holder:
        await holder.enter_async_context(bucket.worker("a").claim(JOB, FINGERPRINT, 0))
        if not is_held:
            await holder.aclose()
        before = await bucket.claim()

        with pytest.raises(ClaimHeld):
            async with bucket.worker("b").claim(JOB, FINGERPRINT, 0, is_new=True):
                pytest.fail("it is not new")

        assert await bucket.claim() == before


@pytest.mark.parametrize("standing", [completed(), failed(), completed(0, "another"), failed(7)])
async def test_a_job_that_has_a_result_is_not_claimed_as_new_and_gets_no_claim(
    bucket: Bucket, standing: ResultMarker
) -> None:
    await bucket.files.save(bucket.files.result(JOB), standing, if_generation=0)

    with pytest.raises(ClaimHeld):
        async with bucket.worker("a").claim(JOB, FINGERPRINT, 0, is_new=True):
            pytest.fail("it is not new")

    assert await bucket.names() == [f"results/{JOB}.json"]


async def test_what_another_request_left_that_was_killed_before_it_found_the_result_hinders_no_later_run(
    bucket: Bucket, clock: FakeClock
) -> None:
    states = bucket.worker("b", clock)
    async with AsyncExitStack() as killed:
        await killed.enter_async_context(bucket.worker("a").claim(JOB, "another", 0, is_new=True))
        await bucket.files.save(bucket.files.result(JOB), failed(0), if_generation=0)
        await states.result(JOB, FINGERPRINT)
        with pytest.raises(ClaimHeld):
            async with states.claim(JOB, FINGERPRINT, 1, has_result=True):
                pytest.fail("its owner may live")
        await clock.advance(TTL)

        async with states.claim(JOB, FINGERPRINT, 1, has_result=True) as claim:
            assert (claim.record.deliveries, claim.record.crashes) == (1, 0)


async def test_the_progress_of_the_last_chunk_is_noted_with_the_proof_that_follows(bucket: Bucket) -> None:
    async with bucket.worker("a").claim(JOB, FINGERPRINT, 0) as claim:
        before = await bucket.claim()
        await claim.note_progress(is_last=True)
        between = await bucket.claim()
        await claim.verify()
        after = (await bucket.claim()).content

    assert between == before
    assert after
    assert after.progressed


@pytest.mark.parametrize(("passed", "writes"), [(0.0, 0), (1.5, 1)])
async def test_a_result_relies_on_a_proof_of_the_last_second(
    bucket: Bucket, clock: FakeClock, passed: float, writes: int
) -> None:
    async with bucket.worker("a", clock).claim(JOB, FINGERPRINT, 0) as claim:
        await claim.verify()
        before = claim.record.beat
        await clock.advance(passed)

        await claim.conclude(completed())

        assert claim.record.beat == before + writes


async def test_of_two_workers_that_proved_their_claim_in_turn_one_writes_the_result(bucket: Bucket) -> None:
    async with bucket.worker("a").claim(JOB, FINGERPRINT, 0) as paused:
        await paused.verify()
        stale = (await bucket.claim()).generation
        async with bucket.worker("b").claim(JOB, FINGERPRINT, 0, stale_generation=stale) as claim:
            await claim.verify()
            await claim.conclude(completed())
            with pytest.raises(ClaimLost):
                await paused.conclude(failed())

    result = await bucket.worker("b").result(JOB, FINGERPRINT)
    assert result
    assert result.outcome == "completed"
    assert await bucket.names() == [f"results/{JOB}.json"]
