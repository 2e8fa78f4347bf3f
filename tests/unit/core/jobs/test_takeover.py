"""Idle time of a job whose worker is killed, by production's figures on a fake clock."""

import asyncio
import random
from pathlib import Path

import pytest
import structlog

from tests.support.clock import FakeClock
from tests.support.jobs.harness import JobsRoom, speech
from tests.support.queues.consumer_harness import fitness_of
from tests.support.wait import eventually
from worker.adapters.memory.pubsub import MemoryPubSub
from worker.adapters.memory.recogniser import MemoryRecogniser
from worker.adapters.memory.store import MemoryObjectStore
from worker.core.delivery.consumer import Consumer
from worker.ports import Pcm

ACK_DEADLINE, TTL = 60, 30.0


class Pool:
    """Workers on one subscription and one bucket. A worker whose clock is not moved any more is as good as killed."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.broker = MemoryPubSub(self.clock)
        self.broker.create_topic("jobs")
        self.broker.create_subscription("jobs-worker", topic="jobs", ack_deadline_seconds=ACK_DEADLINE)
        self.store = MemoryObjectStore(self.clock.now)
        self.folder = folder
        self._runs: list[asyncio.Task[None]] = []

    def start(self, name: str, clock: FakeClock) -> JobsRoom:
        room = JobsRoom(
            self.folder,
            store=self.store,
            clock=clock,
            worker=name,
            recogniser=MemoryRecogniser(script=_stand_still),
            claim_ttl_seconds=TTL,
        )
        consumer = Consumer(
            self.broker.subscription("jobs-worker"),
            room.jobs,
            slots=1,
            max_parked=1,
            ack_deadline_seconds=ACK_DEADLINE,
            max_attempts=5,
            fitness=fitness_of(_pass, clock),
            fuse_threshold=10,
            clock=clock,
            rng=random.Random(1),
        )
        self._runs.append(asyncio.create_task(consumer.run()))
        return room

    async def end(self) -> None:
        for run in self._runs:
            run.cancel()
        await asyncio.gather(*self._runs, return_exceptions=True)


async def _stand_still(_samples: Pcm, _job_id: str) -> None:
    await asyncio.Event().wait()


async def _pass() -> None:
    pass


@pytest.mark.parametrize("killed_after", [1, 9, 14, 29, 31, 44, 59])
async def test_the_job_of_a_killed_worker_goes_on_when_its_message_comes_back(
    tmp_path: Path, killed_after: int
) -> None:
    pool, clock_of_the_first = Pool(tmp_path), FakeClock()
    first = pool.start("first", clock_of_the_first)
    await first.upload(speech(30))
    pool.broker.publish(
        "jobs", b'{"job_id": "job-1", "video_id": "vod", "audio_uri": "gs://audio/a.pcm"}', {}, ordering_key=""
    )
    await eventually(lambda: _is_held_by(pool, "first"))
    for _ in range(killed_after):
        await pool.clock.advance(1)
        await clock_of_the_first.advance(1)

    pool.start("second", pool.clock)
    seconds = 0
    with structlog.testing.capture_logs() as lines:
        while not await _is_held_by(pool, "second"):
            await pool.clock.advance(1)
            seconds += 1
            assert seconds < 2 * ACK_DEADLINE
    await pool.end()

    parked = [line for line in lines if line["event"] == "job.parked"]
    (told,) = (line for line in lines if line["event"] == "claim.taken_over")
    assert seconds <= ACK_DEADLINE + 1
    assert parked == []
    assert told["taken_from"] == "first"


async def _is_held_by(pool: Pool, name: str) -> bool:
    return any(
        f'"owner":"{name}"'.encode() in data
        for ref, (data, _) in pool.store._objects.items()
        if ref.name.startswith("claims/")
    )
