"""The door to job state: results, claims, parking."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

import structlog
from pydantic import BaseModel

from schemas.state import ClaimRecord, ResultMarker
from worker.core.jobs.state.checkpoints import clear_checkpoints
from worker.core.jobs.state.claims import BucketTime, Claim, Sightings, refuse_conflict, successor
from worker.core.jobs.state.files import ABSENT, StateFiles, Stored
from worker.errors import ClaimHeld, PreconditionFailed
from worker.ports import Clock, ObjectStore

log = structlog.get_logger()

FIRST_LOOK_SHARE, LAST_LOOK_SHARE, LOOK_GROWTH = 1 / 60, 1 / 10, 1.5
"""Waits between two looks at another worker's claim, as shares of the ttl: 0.5 s to 3 s of the default."""


BUCKET_TIME_MARGIN_SECONDS = 1.0
"""The most seconds by which the servers of one bucket may stamp apart."""


@dataclass(frozen=True, kw_only=True)
class _Look:
    """A claim that was read, and the known age of its generation in seconds."""

    found: Stored[ClaimRecord]
    stood_still_seconds: float = 0.0
    ttl_seconds: float = 0.0
    """The longer one of the reader's and the owner's: during a roll-out these differ."""

    @property
    def is_stale(self) -> bool:
        """True if the owner of the claim is gone."""
        return self.stood_still_seconds >= self.ttl_seconds


class JobStates:
    """Every job's state in one bucket, as seen by the worker `owner`.

    The bucket needs a lifecycle rule on `checkpoints/` (7 days) and one on `claims/` and `results/` (90 days or more):
    for jobs whose message expired before they were concluded, and for the results themselves. `claim_store` is another
    door to the same bucket, so that heartbeats do not queue behind other requests.

    **When a claim is stale.** Its owner heartbeats three times in its `ttl_seconds` and lets the job go when none could
    be written for that long. So a generation older than that ttl belongs to a worker that is gone. Its age is the
    greater of two lower bounds, neither of which trusts the wall clock of any worker: the time since this worker first
    saw that generation, by its own monotonic clock; and the difference between the bucket's stamp of the generation and
    the bucket's stamp of something that this worker wrote lately. The second makes a message that comes back after its
    ack deadline find its dead owner's claim stale at the first look.
    """

    def __init__(
        self,
        store: ObjectStore,
        bucket: str,
        clock: Clock,
        owner: str,
        ttl_seconds: float,
        *,
        claim_store: ObjectStore | None = None,
        new_id: Callable[[], str] = lambda: uuid4().hex,
    ) -> None:
        self._files = StateFiles(store=store, bucket=bucket, claim_store=claim_store)
        self._clock, self._owner, self._ttl_seconds, self._new_id = clock, owner, ttl_seconds, new_id
        self._sightings, self._bucket_time = Sightings(clock), BucketTime(clock)

    async def result(self, job_id: str, fingerprint: str) -> ResultMarker | None:
        """Return how the job ended, if it did; ask `settles(run)` whether that is an answer to this run.

        Raises `JobIdConflict` when another request used the id, `StorageServiceError`.
        """
        marker = (await self._files.load(self._files.result(job_id), ResultMarker)).content
        if marker is not None:
            refuse_conflict(marker, fingerprint)
        return marker

    @asynccontextmanager
    async def claim(
        self,
        job_id: str,
        fingerprint: str,
        run: int,
        *,
        stale_generation: int | None = None,
        deliveries: int = 1,
        over_result: ResultMarker | None = None,
        has_result: bool = False,
        is_new: bool = False,
    ) -> AsyncIterator[Claim]:
        """Hold the job inside the block; `stale_generation` is the result of `park`.

        `is_new` saves the looks at `result` and at the claim, in the hope that the job has neither: entering raises
        `ClaimHeld` where it has one, whatever that says. A worker that is killed before it finds the result leaves its
        claim, perhaps of another request; so where `result` returned one, another request's claim is no conflict.

        `deliveries` is added to the job's count: 0 if the same delivery claims the job again. `over_result` is a result
        that is to be replaced; any other result that answers the run ends the claim.

        Entering raises `ClaimHeld` if another worker holds the job and is not known to be dead, or has just concluded
        it: park, then look for a result, then try again. Raises `JobIdConflict` if another request used the id,
        `StorageServiceError`.

        Leaving releases the job within a few seconds: the claim is released with its counters, or removed after
        `conclude`. If that fails, the claim becomes stale by itself.
        """
        look = _Look(found=Stored(content=None, generation=ABSENT)) if is_new else await self._look(job_id)
        found = look.found
        if found.content is not None and not has_result:
            refuse_conflict(found.content, fingerprint)
        is_stale = look.is_stale or found.generation == stale_generation
        if is_held(found) and not is_stale:
            raise ClaimHeld(job_id, found.content.owner if found.content else "unknown")
        record = successor(found.content, self._fresh(job_id, fingerprint, run, deliveries))
        claim = Claim(self._files, self._clock, self._ttl_seconds, record, self._bucket_time)
        async with claim.held(found.generation, over_result, is_new=is_new):
            if is_held(found):
                self._log_taking_over(look)
            yield claim

    async def park(self, job_id: str) -> int | None:
        """Wait until the job may be had: its claim is gone or released (None), or stale (the generation to claim over).

        Raises `StorageServiceError`.
        """
        pause = self._ttl_seconds * FIRST_LOOK_SHARE
        while True:
            look = await self._look(job_id)
            if not is_held(look.found):
                return None
            if look.is_stale:
                return look.found.generation
            await self._clock.sleep(pause)
            pause = min(pause * LOOK_GROWTH, self._ttl_seconds * LAST_LOOK_SHARE)

    async def is_started(self, job_id: str) -> bool:
        """Return True where a chunk of the job is finished, or a live worker has the job. Raises `StorageServiceError`.

        Every answer of Deepgram that was paid for is such a chunk.
        """
        if await self._files.checkpoints(job_id):
            return True
        look = await self._look(job_id)
        return is_held(look.found) and not look.is_stale

    async def sweep(self, marker: ResultMarker) -> bool:
        """Remove what a worker that died after writing `marker` left: its claim, and the checkpoints where completed.

        For redeliveries of concluded jobs. Returns False, with nothing removed, where a worker holds a later run: the
        result is being made again. Raises `StorageServiceError`.
        """
        ref = self._files.claim(marker.job_id)
        found = await self._files.load(ref, ClaimRecord)
        if found.content is not None and found.content.run > marker.run:
            if found.content.held:
                return False
        elif found.content is not None:
            with suppress(PreconditionFailed):
                await self._files.delete(ref, if_generation=found.generation)
        if marker.outcome == "completed":
            await clear_checkpoints(self._files, marker.job_id)
        return True

    async def _look(self, job_id: str) -> _Look:
        looked_at = self._clock.monotonic()
        found = await self._files.load(self._files.claim(job_id), ClaimRecord)
        if not is_held(found):
            self._sightings.forget(job_id)
            return _Look(found=found)
        seconds = self._sightings.stood_still_seconds(job_id, found.generation, looked_at)
        ttl_seconds = max(self._ttl_seconds, found.content.ttl_seconds if found.content else 0.0)
        if seconds < ttl_seconds and found.created_at is not None:
            age = (await self._time_of_bucket()) - found.created_at
            seconds = max(seconds, age.total_seconds() - BUCKET_TIME_MARGIN_SECONDS)
        return _Look(found=found, stood_still_seconds=seconds, ttl_seconds=ttl_seconds)

    async def _time_of_bucket(self) -> datetime:
        """Return a time that the bucket's clock has passed; costs a write where this worker wrote no claim lately."""
        if (known := self._bucket_time.at_least()) is not None:
            return known
        ref = self._files.stamp(self._owner)
        written = await self._files.save(ref, _Stamp(written_by=self._new_id()), if_generation=None)
        self._bucket_time.learn(written.created_at)
        await self._files.delete(ref)
        return written.created_at

    @staticmethod
    def _log_taking_over(look: _Look) -> None:
        record = look.found.content
        log.warning(
            "claim.taken_over",
            taken_from=record.owner if record else "unknown",
            stood_still_seconds=round(look.stood_still_seconds, 1),
            progressed=record.progressed if record else None,
        )

    def _fresh(self, job_id: str, fingerprint: str, run: int, deliveries: int) -> ClaimRecord:
        now = self._clock.now()
        return ClaimRecord(
            job_id=job_id,
            fingerprint=fingerprint,
            run=run,
            owner=self._owner,
            claim_id=self._new_id(),
            held=True,
            deliveries=deliveries,
            ttl_seconds=self._ttl_seconds,
            first_seen=now,
            heartbeat_at=now,
        )


class _Stamp(BaseModel):
    """The content of an object that is written for its stamp alone."""

    written_by: str


def is_held(found: Stored[ClaimRecord]) -> bool:
    """Return True where a worker holds the claim; a claim that cannot be read counts as held."""
    return found.generation != ABSENT and (found.content is None or found.content.held)
