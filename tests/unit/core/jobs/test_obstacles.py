"""Resources that a waiting job holds, and obstacles that it does not wait for."""

import gc
import random
import weakref
from contextlib import AbstractAsyncContextManager

import numpy as np
import pytest

from schemas.job import TranscriptionJob
from tests.support.clock import FakeClock
from tests.support.jobs.harness import OnlySlot
from worker.adapters.memory.cloud_recogniser import MemoryCloudRecogniser
from worker.adapters.memory.store import MemoryObjectStore
from worker.core.costs.budget import NoLimit, PaidRecogniser
from worker.core.delivery.fitness import Fitness
from worker.core.jobs.obstacles import Obstacles
from worker.core.jobs.output import OutputWriter
from worker.core.jobs.routing import RoutingPolicy, Situation
from worker.core.jobs.state import JobStates
from worker.errors import DeepgramDown, DeepgramUnavailable, ParkingFull
from worker.ports import Pcm

JOB = TranscriptionJob.model_validate(
    {"job_id": "j", "video_id": "v", "audio_uri": "gs://bucket/a.mp3", "force_method": "deepgram"}
)
DOWN = DeepgramDown("status 503")


def situation(*, gpu_healthy: bool = True, job: TranscriptionJob = JOB) -> Situation:
    return Situation(
        job=job,
        policy=RoutingPolicy(),
        gpu_healthy=gpu_healthy,
        model_languages=frozenset({"en"}),
        duration_seconds=60.0,
    )


class FullSlot:
    """No parking place is free."""

    def parked(self) -> AbstractAsyncContextManager[None]:
        raise ParkingFull(4)


@pytest.fixture
def cloud() -> MemoryCloudRecogniser:
    cloud = MemoryCloudRecogniser()
    cloud.go_down("status 503")
    return cloud


@pytest.fixture
def obstacles(cloud: MemoryCloudRecogniser) -> Obstacles:
    return obstacles_with(PaidRecogniser(recogniser=cloud, usd_per_minute=0.0045, budget=NoLimit()))


def obstacles_with(deepgram: PaidRecogniser | None) -> Obstacles:
    clock = FakeClock()
    store = MemoryObjectStore(clock.now)
    states = JobStates(store, "state", clock, "worker", 30.0)
    output = OutputWriter(store, output_bucket="out", writable_buckets=frozenset())
    return Obstacles(states, deepgram, clock, Fitness((), clock, random.Random(1)), output)


async def test_without_a_place_the_reason_itself_goes_up_and_nothing_is_counted(obstacles: Obstacles) -> None:
    with pytest.raises(DeepgramDown) as caught:
        await obstacles.wait_out(DOWN, situation(), FullSlot())

    assert caught.value is DOWN


async def test_a_job_that_another_worker_may_do_is_not_held(obstacles: Obstacles) -> None:
    auto = JOB.model_copy(update={"force_method": "auto"})
    slot = OnlySlot()

    with pytest.raises(DeepgramDown):
        await obstacles.wait_out(DOWN, situation(gpu_healthy=False, job=auto), slot)

    assert slot.parkings == 0


def test_a_job_that_needs_paid_service_is_not_begun_while_it_is_down(
    cloud: MemoryCloudRecogniser, obstacles: Obstacles
) -> None:
    with pytest.raises(DeepgramDown):
        obstacles.refuse_if_down(situation())
    cloud.mend()
    obstacles.refuse_if_down(situation())
    obstacles_with(None).refuse_if_down(situation())


def test_a_waiting_job_holds_no_samples() -> None:
    held: list[weakref.ref[Pcm]] = []

    def send() -> None:
        samples = np.zeros(16, np.int16)
        held.append(weakref.ref(samples))
        raise DeepgramUnavailable("reset")

    try:
        try:
            send()
        except DeepgramUnavailable as exc:
            raise DeepgramDown("status 503") from exc
    except DeepgramDown as exc:
        obstacle = exc.without_frames()

    gc.collect()
    assert held[0]() is None
    assert str(obstacle) == "Deepgram is down: status 503"
