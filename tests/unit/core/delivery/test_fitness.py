"""Probing, pausing and remembering; what follows for jobs is in tests/unit/test_whose_fault.py."""

import asyncio
import errno
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.support.clock import FakeClock
from worker.core.delivery.fitness import DECODER, MOST_PARTS, TEMP_DIR, Fitness, Need, Part
from worker.core.delivery.handler import Step, next_step
from worker.errors import (
    AudioForbidden,
    CallFailed,
    MachineFault,
    ObjectForbidden,
    PartBroken,
    ResourceDown,
    ResourceRefused,
    StorageServiceError,
    WorkerFault,
)

BUCKET = "gs://out"
FAILED = StorageServiceError("write", f"{BUCKET}/o", "503")
REFUSED = ObjectForbidden("write", f"{BUCKET}/o", "not granted")


@dataclass
class Probe:
    """A bucket that fails while `error` is set."""

    error: Exception | None = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    runs: int = 0

    def __post_init__(self) -> None:
        self.gate.set()

    async def __call__(self) -> None:
        self.runs += 1
        await self.gate.wait()
        if self.error is not None:
            raise self.error


@asynccontextmanager
async def tended(probe: Callable[[], Awaitable[None]], **facts: Any) -> AsyncIterator[tuple[Fitness, FakeClock]]:
    clock = FakeClock()
    fitness = Fitness([Part(name="OUTPUT_BUCKET", resource=BUCKET, probe=probe, **facts)], clock, random.Random(1))
    task = asyncio.create_task(fitness.tend())
    await clock.rest()
    yield fitness, clock
    task.cancel()
    await asyncio.wait([task])


async def test_a_failed_call_to_a_bucket_that_works_counts_an_attempt() -> None:
    async with tended(Probe()) as (fitness, _):
        error = await fitness.diagnose(FAILED, since=0.0)

        assert isinstance(error, CallFailed)
        assert fitness.why_unfit() == ""


async def test_a_failed_call_to_a_bucket_that_fails_is_an_outage_and_stops_the_intake() -> None:
    async with tended(Probe(error=FAILED)) as (fitness, _):
        error = await fitness.diagnose(FAILED, since=0.0)

        assert isinstance(error, ResourceDown)
        assert "OUTPUT_BUCKET" in fitness.why_unfit()


async def test_a_refused_bucket_is_the_workers_fault() -> None:
    async with tended(Probe(error=REFUSED)) as (fitness, _):
        assert isinstance(await fitness.diagnose(REFUSED, since=0.0), ResourceRefused)


async def test_a_refusal_by_a_bucket_that_works_is_the_jobs_where_the_caller_says_so() -> None:
    async with tended(Probe()) as (fitness, _):
        refused = ObjectForbidden("read", f"{BUCKET}/o")
        refused.otherwise = AudioForbidden(f"{BUCKET}/o", "KMS")

        assert await fitness.diagnose(refused, since=0.0) is refused.otherwise


async def test_an_outage_of_a_bucket_that_some_jobs_need_stops_no_intake_but_is_known() -> None:
    async with tended(Probe(error=FAILED), need=Need.SOME_JOBS) as (fitness, _):
        await fitness.diagnose(FAILED, since=0.0)

        assert fitness.why_unfit() == ""
        with pytest.raises(ResourceDown, match="OUTPUT_BUCKET"):
            fitness.refuse_if_broken(BUCKET)


async def test_failures_at_one_moment_share_a_probe() -> None:
    probe = Probe(error=FAILED)
    probe.gate.clear()
    async with tended(probe) as (fitness, clock):
        asking = [asyncio.create_task(fitness.diagnose(FAILED, since=0.0)) for _ in range(5)]
        await clock.rest()
        probe.gate.set()

        errors = await asyncio.gather(*asking)

        assert probe.runs == 1
        assert {type(error) for error in errors} == {ResourceDown}


async def test_a_part_that_was_broken_while_the_delivery_ran_counts_as_broken() -> None:
    probe = Probe(error=FAILED)
    async with tended(probe) as (fitness, clock):
        began = clock.monotonic()
        await fitness.diagnose(FAILED, since=began)
        probe.error = None
        await clock.advance(5)
        assert fitness.why_unfit() == ""

        late = await fitness.diagnose(FAILED, since=began)
        fresh = await fitness.diagnose(FAILED, since=clock.monotonic())

        assert isinstance(late, ResourceDown)
        assert isinstance(fresh, CallFailed)


async def test_a_broken_part_is_probed_at_least_every_quarter_of_a_minute() -> None:
    probe = Probe(error=FAILED)
    async with tended(probe) as (fitness, clock):
        await fitness.diagnose(FAILED, since=0.0)

        await clock.advance(600)
        runs = probe.runs
        probe.error = None
        await clock.advance(15)

        assert 40 <= runs <= 90
        assert fitness.why_unfit() == ""


async def test_a_part_that_breaks_again_under_every_job_is_trusted_ever_later_until_a_job_is_done() -> None:
    async with tended(Probe()) as (fitness, clock):
        pauses = []
        for number in range(8):
            fitness.report(MachineFault("OUTPUT_BUCKET", "full"), f"delivery-{number}")
            began = clock.monotonic()
            while fitness.why_unfit():
                await clock.advance(0.5)
            pauses.append(clock.monotonic() - began)
        fitness.record_success()
        fitness.report(MachineFault("OUTPUT_BUCKET", "full"), "delivery-9")
        began = clock.monotonic()
        while fitness.why_unfit():
            await clock.advance(0.5)

        assert pauses[0] <= 1
        assert pauses[-1] >= 30
        assert clock.monotonic() - began <= 1


async def test_a_fault_that_one_delivery_meets_again_after_the_part_worked_is_reported_as_met_again() -> None:
    async with tended(Probe()) as (fitness, clock):
        fault = MachineFault("OUTPUT_BUCKET", "full")

        first = fitness.report(fault, "m1")
        still_broken = fitness.report(fault, "m1")
        await clock.advance(60)
        other = fitness.report(MachineFault("OUTPUT_BUCKET", "full"), "m2")
        await clock.advance(60)
        again = fitness.report(MachineFault("OUTPUT_BUCKET", "full"), "m1")

        assert (first, still_broken, other, again) == (False, False, False, True)


async def test_an_outage_is_never_reported_as_the_jobs_doing() -> None:
    async with tended(Probe()) as (fitness, clock):
        fitness.report(ResourceDown("OUTPUT_BUCKET", "503"), "m1")
        await clock.advance(60)

        assert not fitness.report(ResourceDown("OUTPUT_BUCKET", "503"), "m1")


async def test_a_probe_that_hangs_has_failed() -> None:
    probe = Probe()
    probe.gate.clear()
    async with tended(probe) as (fitness, clock):
        asking = asyncio.create_task(fitness.diagnose(FAILED, since=0.0))
        await clock.advance(60)

        assert isinstance(await asking, ResourceDown)
        assert "no answer within 60 s" in fitness.why_unfit()


async def test_a_part_that_breaks_while_another_is_waited_for_is_probed_in_its_own_time() -> None:
    slow, fast = Probe(error=FAILED), Probe()
    async with tended(slow) as (fitness, clock):
        fitness.add(Part(name="STATE_BUCKET", resource="gs://state", probe=fast))
        await fitness.diagnose(FAILED, since=0.0)
        await clock.advance(200)
        fitness.report(MachineFault("STATE_BUCKET", "full"), "m1")

        await clock.advance(1)

        assert fast.runs == 1


async def test_the_last_test_of_each_part_is_kept_with_its_time() -> None:
    probe = Probe()
    async with tended(probe) as (fitness, clock):
        assert fitness.tests[0].passed is None
        fitness.record_verified()
        assert (fitness.tests[0].passed, fitness.tests[0].tested_at) == (True, clock.now())
        probe.error = REFUSED
        await clock.advance(10)

        await fitness.diagnose(REFUSED, since=clock.monotonic())

        (test,) = fitness.tests
        assert (test.passed, test.tested_at) == (False, clock.now())
        assert "not granted" in test.reason


async def test_deliveries_that_meet_a_broken_part_do_not_put_its_probe_off() -> None:
    probe = Probe(error=FAILED)
    async with tended(probe, need=Need.SOME_JOBS) as (fitness, clock):
        down = await fitness.diagnose(FAILED, since=0.0)
        assert isinstance(down, ResourceDown)
        probe.error = None

        for number in range(40):
            fitness.report(down, f"m{number}")
            await clock.advance(0.5)

        fitness.refuse_if_broken(BUCKET)


async def test_a_bucket_that_no_setting_names_is_not_tested_before_a_job_fails_on_it() -> None:
    gone = Probe(error=REFUSED)
    async with tended(Probe()) as (fitness, _):
        fitness.add(Part(name="audio bucket", resource="gs://gone", probe=gone, is_learned=True))

        await fitness.self_test()

        assert (gone.runs, fitness.why_unfit()) == (0, "")


async def test_jobs_may_name_any_number_of_buckets_but_the_number_of_parts_is_limited() -> None:
    async with tended(Probe()) as (fitness, _):
        for number in range(2 * MOST_PARTS):
            fitness.add(Part(name=f"audio bucket {number}", resource=f"gs://{number}", probe=Probe()))

        assert len(fitness.tests) == MOST_PARTS


async def test_an_outage_of_the_newest_of_many_buckets_is_no_fault_of_its_jobs_and_settings_keep_their_parts() -> None:
    async with tended(Probe()) as (fitness, _):
        for number in range(2 * MOST_PARTS):
            probe = Probe(error=FAILED)
            fitness.add(Part(name=f"bucket {number}", resource=f"gs://{number}", probe=probe, is_learned=True))

        error = await fitness.diagnose(StorageServiceError("download", f"gs://{number}/a.mp3", "503"), since=0.0)

        assert isinstance(error, ResourceDown)
        assert fitness.tests[0].part == "OUTPUT_BUCKET"
        assert len(fitness.tests) == MOST_PARTS


async def test_a_part_that_a_job_has_not_tried_is_not_counted_against_it_however_often_it_breaks() -> None:
    probe = Probe()
    async with tended(probe) as (fitness, clock):
        for _ in range(3):
            probe.error = REFUSED
            await fitness.diagnose(REFUSED, since=clock.monotonic())
            with pytest.raises(PartBroken, match="OUTPUT_BUCKET") as caught:
                fitness.refuse_if_broken(BUCKET)
            probe.error = None
            await clock.advance(100)

        assert next_step(caught.value, lease_is_lost=False) is Step.HAND_BACK
        assert not isinstance(caught.value, WorkerFault)
        fitness.refuse_if_broken(BUCKET)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES])
async def test_a_program_that_cannot_be_started_is_the_machines_fault_and_not_the_jobs(number: int) -> None:
    error = OSError(number, os.strerror(number), "ffmpeg")
    decoder = Probe(error)
    fitness = Fitness(
        [
            Part(name="TEMP_DIR", resource=TEMP_DIR, probe=Probe(), remote=False),
            Part(name="decoder", resource=DECODER, probe=decoder, remote=False),
        ],
        FakeClock(),
        random.Random(1),
    )

    fault = await fitness.diagnose(error, since=0.0)

    assert isinstance(fault, MachineFault)
    assert fault.part == "decoder"
    assert "ffmpeg" in fitness.why_unfit()
    decoder.error = None
    await fitness.self_test()
    assert await fitness.diagnose(error, since=1.0) is error
