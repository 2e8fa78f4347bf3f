import asyncio

import pytest

from tests.support.jobs.state import FINGERPRINT, JOB, Bucket, checkpoint, completed, failed
from worker.errors import ClaimLost, JobIdConflict

RESULT = f"results/{JOB}.json"


async def conclude(bucket: Bucket, marker: object, run: int = 0) -> None:
    async with bucket.worker("a").claim(JOB, FINGERPRINT, run) as claim:
        await claim.conclude(marker)


async def test_a_job_without_a_marker_has_no_result(bucket: Bucket) -> None:
    assert await bucket.worker("a").result(JOB, FINGERPRINT) is None


async def test_a_concluded_job_gives_its_messages_back_and_leaves_no_claim(bucket: Bucket) -> None:
    await conclude(bucket, completed())

    found = await bucket.worker("b").result(JOB, FINGERPRINT)

    assert found == completed()
    assert await bucket.names() == [RESULT]


async def test_a_result_of_another_request_is_a_conflict(bucket: Bucket) -> None:
    await conclude(bucket, completed())

    with pytest.raises(JobIdConflict):
        await bucket.worker("b").result(JOB, "another")


@pytest.mark.parametrize(
    ("marker", "run", "settled"),
    [(failed(0), 0, True), (failed(0), 1, False), (failed(2), 1, True), (completed(0), 7, True)],
)
def test_a_failure_settles_the_runs_up_to_its_own_and_a_completed_job_all(
    marker: object, run: int, settled: bool
) -> None:
    assert marker.settles(run) is settled


async def test_a_later_run_overrides_the_earlier_failure(bucket: Bucket) -> None:
    await conclude(bucket, failed(0), run=0)
    await conclude(bucket, completed(1), run=1)

    assert await bucket.worker("b").result(JOB, FINGERPRINT) == completed(1)


async def test_a_marker_written_in_between_is_not_overridden(bucket: Bucket) -> None:
    async with bucket.worker("a").claim(JOB, FINGERPRINT, 0) as claim:
        await bucket.files.save(bucket.files.result(JOB), completed(), if_generation=0)

        with pytest.raises(ClaimLost):
            await claim.conclude(failed())

    assert await bucket.worker("b").result(JOB, FINGERPRINT) == completed()


async def test_a_worker_that_lost_the_claim_writes_no_marker(bucket: Bucket) -> None:
    async with bucket.worker("a").claim(JOB, FINGERPRINT, 0) as paused:
        stale = (await bucket.claim()).generation
        async with bucket.worker("b").claim(JOB, FINGERPRINT, 0, stale_generation=stale):
            with pytest.raises(ClaimLost):
                await paused.conclude(failed())

    assert await bucket.worker("b").result(JOB, FINGERPRINT) is None


async def test_sweeping_removes_what_a_worker_killed_after_the_marker_left(bucket: Bucket) -> None:
    async with bucket.worker("a").claim(JOB, FINGERPRINT, 0) as killed:
        await killed.checkpoints.save("k", checkpoint())
        await bucket.files.save(bucket.files.result(JOB), completed(), if_generation=0)

        await bucket.worker("b").sweep(completed())

        assert await bucket.names() == [RESULT]


async def test_sweeping_after_a_failure_keeps_checkpoints_and_the_claim_of_a_later_run(bucket: Bucket) -> None:
    await conclude(bucket, failed(0))
    async with bucket.worker("a").claim(JOB, FINGERPRINT, 1) as replay:
        await replay.checkpoints.save("k", checkpoint())

        await bucket.worker("b").sweep(failed(0))

        await replay.verify()
        assert f"checkpoints/{JOB}/k/00000.json" in await bucket.names()


async def test_an_unreadable_marker_is_no_result_and_is_overridden(bucket: Bucket) -> None:
    await bucket.store.write(bucket.files.result(JOB), b"{}", content_type="text/plain")

    before = await bucket.worker("a").result(JOB, FINGERPRINT)
    await conclude(bucket, completed())

    assert before is None
    assert await bucket.worker("a").result(JOB, FINGERPRINT) == completed()


async def test_after_the_marker_is_written_a_lost_heartbeat_does_not_matter(bucket: Bucket) -> None:
    async with bucket.worker("a").claim(JOB, FINGERPRINT, 0) as claim:
        await claim.conclude(completed())
        await bucket.worker("b").sweep(completed())
        await asyncio.sleep(0)

        assert not claim.lost.is_set()
