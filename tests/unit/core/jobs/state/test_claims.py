import asyncio
import gc
from contextlib import AsyncExitStack

import pytest

from schemas.state import Waste
from tests.support.clock import FakeClock
from tests.support.jobs.state import FINGERPRINT, JOB, TTL, BrokenWrites, Bucket, completed, failed
from worker.errors import ClaimHeld, ClaimLost, JobIdConflict


async def test_a_claim_exists_while_it_is_held_and_keeps_its_counters_when_released(bucket: Bucket) -> None:
    async with bucket.worker("a").claim(JOB, FINGERPRINT, 0) as claim:
        during = (await bucket.claim()).content
        await claim.record_failure("it broke")

    after = (await bucket.claim()).content
    assert during
    assert (during.held, during.owner, during.deliveries) == (True, "a", 1)
    assert after
    assert (after.held, after.failures) == (False, 1)


async def test_the_faults_of_a_run_are_kept_through_claims_and_into_its_result(bucket: Bucket) -> None:
    for number in range(12):
        async with bucket.worker("a").claim(JOB, FINGERPRINT, 0) as claim:
            await claim.record_failure(f"fault {number}")
    async with bucket.worker("b").claim(JOB, FINGERPRINT, 0) as claim:
        await claim.record_crash("x" * 2_000)
        await claim.conclude(completed())

    marker = await bucket.worker("b").result(JOB, FINGERPRINT)

    assert marker
    assert [fault.reason for fault in marker.faults] == [*(f"fault {number}" for number in range(3, 12)), "x" * 500]


async def test_of_two_workers_that_claim_at_once_exactly_one_wins(bucket: Bucket) -> None:
    winners: list[str] = []

    async def try_to_hold(owner: str) -> None:
        async with bucket.worker(owner).claim(JOB, FINGERPRINT, 0):
            winners.append(owner)

    outcomes = await asyncio.gather(*(try_to_hold(owner) for owner in "abcde"), return_exceptions=True)

    assert len(winners) == 1
    assert [type(each) for each in outcomes if each] == [ClaimHeld] * 4


async def test_counters_of_a_run_survive_release_and_a_later_run_counts_from_zero(bucket: Bucket) -> None:
    states = bucket.worker("a")
    for _ in range(2):
        async with states.claim(JOB, FINGERPRINT, 0) as claim:
            await claim.record_failure("it broke")

    async with states.claim(JOB, FINGERPRINT, 0) as claim:
        third = claim.record
    async with states.claim(JOB, FINGERPRINT, 1) as claim:
        replayed = claim.record

    assert (third.failures, third.deliveries, third.crashes) == (2, 3, 0)
    assert (replayed.failures, replayed.deliveries, replayed.crashes) == (0, 1, 0)


async def test_what_failed_chunks_cost_adds_up_over_the_attempts_of_a_run(bucket: Bucket) -> None:
    waste = Waste(engine_seconds=1.5, deepgram_requests=2, deepgram_seconds=20.0)
    for owner in "ab":
        async with bucket.worker(owner).claim(JOB, FINGERPRINT, 0) as claim:
            await claim.add_waste(waste)

    async with bucket.worker("c").claim(JOB, FINGERPRINT, 0) as claim:
        third = claim.record
    async with bucket.worker("c").claim(JOB, FINGERPRINT, 1) as claim:
        replayed = claim.record

    assert third.waste == waste + waste == Waste(engine_seconds=3.0, deepgram_requests=4, deepgram_seconds=40.0)
    assert not replayed.waste


async def test_a_claim_released_by_a_cancelled_job_counts_no_crash(bucket: Bucket) -> None:
    entered = asyncio.Event()

    async def job() -> None:
        async with bucket.worker("a").claim(JOB, FINGERPRINT, 0):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(job())
    await entered.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert task.cancelled()
    async with bucket.worker("b").claim(JOB, FINGERPRINT, 0) as claim:
        assert claim.record.crashes == 0


async def test_heartbeats_move_the_generation_three_times_in_a_ttl(bucket: Bucket, clock: FakeClock) -> None:
    async with bucket.worker("a", clock).claim(JOB, FINGERPRINT, 0) as claim:
        before = (await bucket.claim()).content
        await clock.advance(TTL)
        after = (await bucket.claim()).content

        assert before
        assert after
        assert after.beat - before.beat == 3
        assert not claim.lost.is_set()


async def test_a_stale_claim_is_taken_over_and_counted_as_a_crash(bucket: Bucket) -> None:
    async with AsyncExitStack() as dead:
        await dead.enter_async_context(bucket.worker("a").claim(JOB, FINGERPRINT, 0))
        stale = (await bucket.claim()).generation

        async with bucket.worker("b").claim(JOB, FINGERPRINT, 0, stale_generation=stale) as claim:
            record = claim.record

    assert (record.owner, record.crashes, record.deliveries) == ("b", 1, 2)
    assert [fault.reason for fault in record.faults] == ["the worker a went away"]


@pytest.mark.parametrize("progress", ["verdict", "checkpoint"])
async def test_a_start_that_came_to_a_verdict_or_a_checkpoint_is_no_crash(bucket: Bucket, progress: str) -> None:
    async with AsyncExitStack() as dead:
        first = await dead.enter_async_context(bucket.worker("a").claim(JOB, FINGERPRINT, 0))
        await (first.record_failure("it broke") if progress == "verdict" else first.note_progress())
        stale = (await bucket.claim()).generation

        async with bucket.worker("b").claim(JOB, FINGERPRINT, 0, stale_generation=stale) as claim:
            record = claim.record

    assert record.crashes == 0
    assert not record.progressed


async def test_a_claim_that_moved_since_it_was_seen_is_not_taken_over(bucket: Bucket, clock: FakeClock) -> None:
    async with bucket.worker("a", clock).claim(JOB, FINGERPRINT, 0):
        seen = (await bucket.claim()).generation
        await clock.advance(TTL / 2)

        with pytest.raises(ClaimHeld):
            async with bucket.worker("b").claim(JOB, FINGERPRINT, 0, stale_generation=seen):
                pass


async def test_a_worker_that_was_paused_for_longer_than_the_ttl_notices_that_it_lost(bucket: Bucket) -> None:
    paused = FakeClock()
    async with bucket.worker("a", paused).claim(JOB, FINGERPRINT, 0) as sleeper:
        stale = (await bucket.claim()).generation
        async with bucket.worker("b").claim(JOB, FINGERPRINT, 0, stale_generation=stale):
            with pytest.raises(ClaimLost):
                await sleeper.verify()

            assert sleeper.lost.is_set()

    released = (await bucket.claim()).content
    assert released
    assert (released.owner, released.held) == ("b", False)


async def test_the_next_heartbeat_of_a_paused_worker_detects_the_loss_too(bucket: Bucket) -> None:
    paused = FakeClock()
    async with bucket.worker("a", paused).claim(JOB, FINGERPRINT, 0) as sleeper:
        stale = (await bucket.claim()).generation
        async with bucket.worker("b").claim(JOB, FINGERPRINT, 0, stale_generation=stale):
            await paused.advance(TTL / 3)

            assert sleeper.lost.is_set()


async def test_a_claim_is_lost_when_no_heartbeat_could_be_written_for_the_ttl(clock: FakeClock) -> None:
    store = BrokenWrites(clock.now)
    async with Bucket(store).worker("a", clock).claim(JOB, FINGERPRINT, 0) as claim:
        store.broken = True

        await clock.advance(TTL - 1)
        before = claim.lost.is_set()
        await clock.advance(1)

        assert not before
        assert claim.lost.is_set()


async def test_a_claim_lost_for_missing_heartbeats_is_released_unless_it_was_taken(clock: FakeClock) -> None:
    store = BrokenWrites(clock.now)
    bucket = Bucket(store)
    async with bucket.worker("a", clock).claim(JOB, FINGERPRINT, 0) as claim:
        store.broken = True
        await clock.advance(TTL)
        store.broken = False
        with pytest.raises(ClaimLost):
            await claim.verify()

    released = (await bucket.claim()).content
    assert released
    assert not released.held
    async with bucket.worker("b").claim(JOB, FINGERPRINT, 0) as taken:
        assert taken.record.crashes == 0


async def test_a_heartbeat_that_hangs_loses_the_claim_in_time(clock: FakeClock) -> None:
    store = BrokenWrites(clock.now)
    bucket = Bucket(store)
    async with bucket.worker("a", clock).claim(JOB, FINGERPRINT, 0) as claim:
        store.gate.clear()

        await clock.advance(TTL)

        assert claim.lost.is_set()
        store.gate.set()


async def test_a_caller_cancelled_in_the_middle_of_a_write_leaves_a_claim_that_can_be_released(
    clock: FakeClock,
) -> None:
    store = BrokenWrites(clock.now)
    bucket = Bucket(store)
    async with bucket.worker("a", clock).claim(JOB, FINGERPRINT, 0) as claim:
        store.gate.clear()
        failing = asyncio.create_task(claim.record_failure("it broke"))
        await clock.rest()
        failing.cancel()
        await clock.rest()
        store.gate.set()

    released = (await bucket.claim()).content
    assert released
    assert (released.held, released.failures) == (False, 1)


async def test_a_write_that_fails_after_its_caller_was_cancelled_is_no_complaint_of_the_event_loop(
    clock: FakeClock,
) -> None:
    store, complaints = BrokenWrites(clock.now), list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    async with Bucket(store).worker("a", clock).claim(JOB, FINGERPRINT, 0) as claim:
        store.gate.clear()
        failing = asyncio.create_task(claim.verify())
        await clock.rest()
        failing.cancel()
        await clock.rest()
        store.broken = True
        store.gate.set()
        await clock.rest()
        gc.collect()

    assert complaints == []


async def test_a_job_cancelled_while_its_claim_is_being_written_leaves_no_claim_held(clock: FakeClock) -> None:
    store = BrokenWrites(clock.now)
    bucket = Bucket(store)
    store.gate.clear()

    async def job() -> None:
        async with bucket.worker("a", clock).claim(JOB, FINGERPRINT, 0):
            pytest.fail("it was cancelled before")

    task = asyncio.create_task(job())
    await clock.rest()
    task.cancel()
    await clock.rest()
    store.gate.set()
    await asyncio.gather(task, return_exceptions=True)

    released = (await bucket.claim()).content
    assert task.cancelled()
    assert released
    assert not released.held


async def test_another_request_with_the_same_job_id_is_a_conflict(bucket: Bucket) -> None:
    async with bucket.worker("a").claim(JOB, FINGERPRINT, 0):
        with pytest.raises(JobIdConflict):
            async with bucket.worker("b").claim(JOB, "another", 0):
                pass


@pytest.mark.parametrize(
    ("standing", "error"), [(completed(), ClaimHeld), (failed(), ClaimHeld), (completed(0, "another"), JobIdConflict)]
)
async def test_a_job_concluded_since_the_callers_look_is_not_claimed_and_leaves_no_claim(
    bucket: Bucket, standing: object, error: type[Exception]
) -> None:
    await bucket.files.save(bucket.files.result(JOB), standing, if_generation=0)

    with pytest.raises(error):
        async with bucket.worker("a").claim(JOB, FINGERPRINT, 0):
            pytest.fail("there was nothing to claim")

    assert await bucket.names() == [f"results/{JOB}.json"]


async def test_an_unreadable_claim_counts_as_held_until_it_is_stale(bucket: Bucket) -> None:
    facts = await bucket.store.write(bucket.files.claim(JOB), b"?", content_type="text/plain")

    with pytest.raises(ClaimHeld):
        async with bucket.worker("a").claim(JOB, FINGERPRINT, 0):
            pass
    async with bucket.worker("a").claim(JOB, FINGERPRINT, 0, stale_generation=facts.generation) as claim:
        assert claim.record.deliveries == 1
