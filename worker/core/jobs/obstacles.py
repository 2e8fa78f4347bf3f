"""Obstacles to claiming a job now, and how they are waited out: in a parking place, without the claim."""

from typing import Protocol

import structlog

from schemas.job import TranscriptionJob
from worker.core.jobs.output import OutputWriter
from worker.core.jobs.paid_recogniser import PaidRecogniser
from worker.core.jobs.routing import Situation, another_may_do_without, needs_paid_service
from worker.core.jobs.state import JobStates
from worker.errors import ClaimHeld, DeepgramDown, ParkingFull, ResourceDown, ServiceDown
from worker.ports import Clock, JobSlot

LEAST_SECONDS = 5.0
"""The shortest wait for Deepgram, which may serve others and have no time for this job."""

log = structlog.get_logger(__name__)


class Resources(Protocol):
    """What this worker knows of its buckets; a resource is named `gs://bucket`."""

    def refuse_if_broken(self, resource: str) -> None:
        """Raise `ResourceDown` or `ResourceRefused` where the resource is known not to work now."""
        ...

    async def wait_mended(self, resource: str) -> None:
        """Return once nothing is known against the resource."""
        ...


def expect_paid_service(paid: PaidRecogniser | None, situation: Situation) -> None:
    """Raise `DeepgramDown` where the job needs Deepgram and it is down, before anything is downloaded for the job."""
    if paid is not None and (reason := paid.recogniser.down_because) and needs_paid_service(situation):
        raise DeepgramDown(reason)


class Obstacles:
    """Waits for another worker's claim to end, for Deepgram to come back, or for the job's buckets to work again."""

    def __init__(
        self,
        states: JobStates,
        paid: PaidRecogniser | None,
        clock: Clock,
        resources: Resources,
        output: OutputWriter,
    ) -> None:
        self._states, self._paid, self._clock, self._resources, self._output = states, paid, clock, resources, output

    def expect_buckets(self, job: TranscriptionJob) -> None:
        """Raise `ResourceDown` or `ResourceRefused` where a bucket that the job needs is known not to work now."""
        for bucket in self._buckets_of(job):
            self._resources.refuse_if_broken(bucket)

    async def wait_out(
        self, obstacle: ClaimHeld | DeepgramDown | ResourceDown, situation: Situation, slot: JobSlot
    ) -> int | None:
        """Park until the job may be claimed; return the generation of a dead worker's claim to take over, or None.

        Raises `ParkingFull` if every parking place is taken; `obstacle` itself if it is a service and there is no
        place, or another worker may work without that service.
        """
        if isinstance(obstacle, DeepgramDown) and another_may_do_without(situation):
            raise obstacle
        log.info("job.parked", reason=str(obstacle))
        if isinstance(obstacle, ServiceDown):
            await self._wait_for_service(obstacle, situation, slot)
            return None
        async with slot.parked():
            return await self._states.park(situation.job.job_id)

    async def _wait_for_service(self, down: DeepgramDown | ResourceDown, situation: Situation, slot: JobSlot) -> None:
        try:
            async with slot.parked():
                if isinstance(down, DeepgramDown):
                    await self._wait_for_paid_service(down)
                else:
                    for bucket in self._buckets_of(situation.job):
                        await self._resources.wait_mended(bucket)
        except ParkingFull:
            raise down from None
        log.info("job.unparked")

    def _buckets_of(self, job: TranscriptionJob) -> tuple[str, str]:
        return f"gs://{job.audio.bucket}", f"gs://{self._output.bucket_of(job)}"

    async def _wait_for_paid_service(self, down: DeepgramDown) -> None:
        if self._paid is None:
            raise down
        await self._clock.sleep(LEAST_SECONDS)
        await self._paid.recogniser.turn()
