"""Tasks that belong together, bounded waits and backoff."""

import asyncio
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.clock import FakeClock
from tests.support.jobs.harness import JobsRoom, OnlySlot, speech
from tests.support.wait import eventually
from worker.adapters.memory.cloud_recogniser import MemoryCloudRecogniser
from worker.adapters.memory.recogniser import MemoryRecogniser
from worker.core.costs.budget import NoLimit, PaidRecogniser
from worker.core.tasks import backoff_seconds, bounded, together
from worker.errors import EngineFailure
from worker.ports import CloudRecognition, Pcm

TURNS = range(6)
"""Turns of the event loop between the error and the cancellation: every order of the two and of their callbacks."""


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("count", TURNS)
@pytest.mark.parametrize("body_waits", [False, True])
async def test_a_cancellation_is_not_lost_to_an_error_of_the_same_moment(count: int, body_waits: bool) -> None:
    fails, went_on_when_cancelled = asyncio.Event(), False

    async def fail() -> None:
        await fails.wait()
        raise EngineFailure("parakeet", "its process ended")

    async def work() -> None:
        nonlocal went_on_when_cancelled
        try:
            async with together() as group:
                group.create_task(fail())
                if body_waits:
                    await asyncio.Event().wait()
        except EngineFailure:
            went_on_when_cancelled = is_cancelled
            await asyncio.Event().wait()

    task, is_cancelled = asyncio.create_task(work()), False
    await turns(3)

    fails.set()
    await turns(count)
    is_cancelled = task.cancel()
    await asyncio.wait({task}, timeout=5)

    assert task.cancelled()
    assert not went_on_when_cancelled


@pytest.mark.parametrize("body_waits", [False, True])
async def test_an_error_alone_leaves_no_trace_of_a_cancellation(body_waits: bool) -> None:
    async def fail() -> None:
        raise EngineFailure("parakeet", "its process ended")

    async def work() -> None:
        async with together() as group:
            group.create_task(fail())
            if body_waits:
                await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await asyncio.wait({task})

    assert isinstance(task.exception(), EngineFailure)
    assert task.cancelling() == 0


class WatchedCloud(MemoryCloudRecogniser):
    """Notes for each request whether the task that sends it has been cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.sent_by_cancelled: list[bool] = []

    async def recognise(
        self, samples: Pcm, *, language: str, job_id: str, keyterms: tuple[str, ...] = ()
    ) -> CloudRecognition:
        task = asyncio.current_task()
        self.sent_by_cancelled.append(task is None or task.cancelling() > 0)
        return await super().recognise(samples, language=language, job_id=job_id, keyterms=keyterms)


@pytest.mark.parametrize("count", range(12))
async def test_a_cancelled_chunk_that_fails_at_that_moment_is_not_sent_to_deepgram(tmp_path: Path, count: int) -> None:
    asked, fails, cloud = 0, asyncio.Event(), WatchedCloud()

    async def break_down(_samples: Pcm, _job_id: str) -> None:
        nonlocal asked
        asked += 1
        await fails.wait()
        raise EngineFailure("parakeet", "its process ended")

    async def is_asked() -> bool:
        return asked > 0

    paid = PaidRecogniser(recogniser=cloud, usd_per_minute=0.0045, budget=NoLimit())
    room = JobsRoom(tmp_path, recogniser=MemoryRecogniser(script=break_down), deepgram=paid, chunks_in_flight=1)
    await room.upload(speech(12))
    job = asyncio.create_task(room.attempt().handle(OnlySlot()))
    await eventually(is_asked)

    job.cancel()
    await turns(count)
    fails.set()
    await asyncio.wait({job}, timeout=5)

    assert job.cancelled()
    assert True not in cloud.sent_by_cancelled


async def test_work_within_its_bound_returns_or_raises_as_it_likes() -> None:
    clock = FakeClock()

    async def divide(by: int) -> float:
        await clock.sleep(0)
        return 1 / by

    assert await bounded(divide(2), 5, clock) == 0.5
    with pytest.raises(ZeroDivisionError):
        await bounded(divide(0), 5, clock)


async def test_work_that_ignores_its_cancellation_is_left_behind_at_its_bound() -> None:
    clock = FakeClock()
    over = asyncio.Event()

    async def stubborn() -> None:
        while not over.is_set():
            try:
                await over.wait()
            except asyncio.CancelledError:
                continue
        raise LookupError

    waiting = asyncio.create_task(bounded(stubborn(), 5, clock))
    await clock.advance(5)

    with pytest.raises(TimeoutError, match="no answer within 5 s"):
        await waiting
    over.set()
    await clock.rest()


@given(failures=st.integers(1, 2000), seed=st.integers(0, 100))
def test_a_pause_doubles_up_to_the_longest_and_is_half_chance(failures: int, seed: int) -> None:
    pause = backoff_seconds(failures, base=0.5, most=30, rng=random.Random(seed))

    nominal = 0.5 * 2.0 ** min(failures - 1, 10)
    assert min(nominal, 30) / 2 <= pause <= min(nominal, 30)
