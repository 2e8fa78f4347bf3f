"""Obstacles to beginning a job now, and how they are waited out: in a parking place, without the claim."""

import math
from datetime import datetime
from typing import Protocol

import structlog

from schemas.job import TranscriptionJob
from worker.core.costs.budget import PaidRecogniser
from worker.core.jobs.output import OutputWriter
from worker.core.jobs.routing import Situation, another_may_do_without, needs_paid_service
from worker.core.jobs.state import JobStates
from worker.errors import ClaimHeld, DeepgramDown, JobExpired, ParkingFull, ResourceDown, ServiceDown, WorkerError
from worker.ports import Clock, JobSlot

LEAST_SECONDS = 5.0
"""The shortest wait for Deepgram, which may serve others and have no time for this job."""

log = structlog.get_logger(__name__)


class Resources(Protocol):
    """Buckets that are known not to work now; a resource is named `gs://bucket`."""

    def refuse_if_broken(self, resource: str) -> None:
        """Raise `ResourceDown` or `PartBroken` where the resource is known not to work now."""
        ...

    async def wait_mended(self, resource: str) -> None:
        """Return once nothing is known against the resource."""
        ...


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

    def is_free_to_begin(self, job: TranscriptionJob, publish_time: datetime, situation: Situation) -> bool:
        """Return True where the deadline has not passed and no service is known to be down that the job needs."""
        try:
            self.refuse_if_down(situation)
        except WorkerError:
            return False
        return self._late_seconds(job, publish_time) < 0

    async def refuse_expired(self, job: TranscriptionJob, publish_time: datetime) -> None:
        """Raise `JobExpired` where the job's deadline has passed and nothing has been done for it yet.

        A job with a finished chunk, or one that a live worker has, counts as begun and is finished. The time is this
        worker's wall clock; where it is behind `publish_time`, at which Pub/Sub took the message, that time counts. A
        wall clock that is ahead makes jobs expire early by as much. Raises `StorageServiceError`.
        """
        late = self._late_seconds(job, publish_time)
        if job.expires_at is not None and late >= 0 and not await self._states.is_started(job.job_id):
            raise JobExpired(job.expires_at, late)

    def _late_seconds(self, job: TranscriptionJob, publish_time: datetime) -> float:
        if job.expires_at is None:
            return -math.inf
        return (max(self._clock.now(), publish_time) - job.expires_at).total_seconds()

    def refuse_if_down(self, situation: Situation) -> None:
        """Raise where the job needs a service that is known not to work now, before anything is downloaded for it.

        `ResourceDown` or `PartBroken` for a bucket, `DeepgramDown` where no chunk of it may go to Parakeet.
        """
        for bucket in self._buckets_of(situation.job):
            self._resources.refuse_if_broken(bucket)
        paid = self._paid
        if paid is not None and (reason := paid.recogniser.down_because) and needs_paid_service(situation):
            raise DeepgramDown(reason)

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
                    if self._paid is None:
                        raise down
                    await self._clock.sleep(LEAST_SECONDS)
                    await self._paid.recogniser.turn()
                else:
                    for bucket in self._buckets_of(situation.job):
                        await self._resources.wait_mended(bucket)
        except ParkingFull:
            raise down from None
        log.info("job.unparked")

    def _buckets_of(self, job: TranscriptionJob) -> tuple[str, str]:
        return f"gs://{job.audio.bucket}", f"gs://{self._output.bucket_of(job)}"
