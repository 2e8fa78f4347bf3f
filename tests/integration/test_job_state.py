"""Job state on the real adapter and server, with real processes that are killed and stopped."""

import asyncio
import random
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from schemas.state import ResultMarker
from tests.support.jobs.state import BUCKET, FINGERPRINT, JOB, Bucket, checkpoint, completed
from tests.support.services.gcs import store_at
from tests.support.services.http_faults import faulty_proxy, lose_reply, plainly, refuse
from tests.support.wait import eventually
from worker.adapters.gcs import Retries
from worker.adapters.machine.clock import SystemClock
from worker.core.jobs.state import JobStates
from worker.embedded.gcs import EmbeddedGcs
from worker.errors import ClaimHeld, ClaimLost
from worker.ports import ObjectStore

TTL = 1.0
PATIENT = Retries(attempts=10, first_wait_seconds=0.001, longest_wait_seconds=0.01)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedGcs]:
    with EmbeddedGcs(tmp_path) as server:
        server.create_buckets([BUCKET])
        yield server


@pytest.fixture
async def store(server: EmbeddedGcs) -> AsyncIterator[ObjectStore]:
    async with store_at(server.url) as store:
        yield store


def worker(store: ObjectStore, owner: str, ttl_seconds: float = TTL) -> JobStates:
    return JobStates(store, BUCKET, SystemClock(), owner, ttl_seconds)


@asynccontextmanager
async def victim(url: str, ttl_seconds: float, *does: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker process that holds the job by the time it is handed over."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.jobs.state_worker", url, str(ttl_seconds), *does),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout
        assert await process.stdout.readline() == b"held\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize(("does", "crashes"), [("nothing", 1), ("checkpoint", 0)])
async def test_the_claim_of_a_killed_worker_is_taken_over_with_its_checkpoints(
    server: EmbeddedGcs, store: ObjectStore, does: str, crashes: int
) -> None:
    async with victim(server.url, TTL, does) as process:
        process.kill()
        await process.wait()
    states = worker(store, "heir")

    stale = await states.park(JOB)
    async with states.claim(JOB, FINGERPRINT, 0, stale_generation=stale) as claim:
        record, saved = claim.record, await claim.checkpoints.load("key", 0)

    assert (record.crashes, record.deliveries) == (crashes, 2)
    assert saved == (checkpoint(0) if does == "checkpoint" else None)


async def test_a_worker_started_after_the_kill_takes_the_job_without_parking_once_the_claim_is_old(
    server: EmbeddedGcs, store: ObjectStore
) -> None:
    async with victim(server.url, TTL, "nothing") as process:
        process.kill()
        await process.wait()
    newcomers = (worker(store, f"newcomer-{number}") for number in range(10_000))

    async def one_takes_it() -> bool:  # each looks for the first time, as after the redelivery of its message
        with suppress(ClaimHeld):
            async with next(newcomers).claim(JOB, FINGERPRINT, 0):
                return True
        return False

    await eventually(one_takes_it)


async def test_a_process_stopped_for_longer_than_the_ttl_notices_when_it_wakes_up(
    server: EmbeddedGcs, store: ObjectStore
) -> None:
    states = worker(store, "heir")
    async with victim(server.url, TTL, "nothing") as process:
        process.send_signal(signal.SIGSTOP)
        stale = await states.park(JOB)
        async with states.claim(JOB, FINGERPRINT, 0, stale_generation=stale) as claim:
            process.send_signal(signal.SIGCONT)
            assert process.stdout
            said = await process.stdout.readline()
            rc = await process.wait()
            await claim.verify()

    assert (said, rc) == (b"lost\n", 0)


async def test_a_live_process_keeps_its_job_for_several_ttls(server: EmbeddedGcs, store: ObjectStore) -> None:
    states = worker(store, "rival")
    async with victim(server.url, TTL, "nothing"):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3 * TTL):
                await states.park(JOB)


@pytest.mark.parametrize("seed", [1, 2])
async def test_each_of_many_jobs_is_concluded_once_by_rivals_on_a_bad_network(
    server: EmbeddedGcs, store: ObjectStore, seed: int
) -> None:
    chance = random.Random(seed)
    jobs = [f"job-{n}" for n in range(4)]
    done: list[str] = []

    async def work(states: JobStates, job_id: str) -> None:
        stale: int | None = None
        while not await states.result(job_id, FINGERPRINT):
            try:
                async with states.claim(job_id, FINGERPRINT, 0, stale_generation=stale) as claim:
                    await claim.checkpoints.save("key", checkpoint(0))
                    await claim.conclude(concluded(job_id))
                    done.append(job_id)
                    await claim.checkpoints.clear()
            except ClaimHeld:
                stale = await states.park(job_id)
            except ClaimLost:  # a busy machine: the next delivery goes on
                stale = None

    async with faulty_proxy(server.url) as proxy, store_at(proxy.url, PATIENT) as shaken:
        proxy.faults.extend(chance.choices([plainly, refuse(503), lose_reply], [8, 1, 1], k=3_000))
        rivals = [worker(shaken, f"w{n}", ttl_seconds=5.0) for n in range(3)]
        await asyncio.gather(*(work(states, job_id) for job_id in jobs for states in rivals))

    assert sorted(done) == jobs
    assert await Bucket(store).names() == [f"results/{job_id}.json" for job_id in jobs]


def concluded(job_id: str) -> ResultMarker:
    return completed().model_copy(update={"job_id": job_id})
