"""The door to job state: results, claims, parking."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from uuid import uuid4

from schemas.state import ClaimRecord, ResultMarker
from worker.core.jobs.state.checkpoints import clear_checkpoints
from worker.core.jobs.state.claims import Claim, refuse_conflict, successor
from worker.core.jobs.state.files import ABSENT, StateFiles, Stored
from worker.core.jobs.state.sightings import Sightings
from worker.errors import ClaimHeld, PreconditionFailed
from worker.ports import Clock, ObjectStore

FIRST_LOOK_SHARE, LAST_LOOK_SHARE, LOOK_GROWTH = 1 / 60, 1 / 10, 1.5
"""Waits between two looks at another worker's claim, as shares of the ttl: 0.5 s to 3 s of the default."""


class JobStates:
    """Every job's state in one bucket, as seen by the worker `owner`.

    The bucket needs a lifecycle rule on `checkpoints/` (7 days) and one on `claims/` and `results/` (90 days or more):
    for jobs whose message expired before they were concluded, and for the results themselves.
    """

    def __init__(
        self,
        store: ObjectStore,
        bucket: str,
        clock: Clock,
        owner: str,
        ttl_seconds: float,
        *,
        new_id: Callable[[], str] = lambda: uuid4().hex,
    ) -> None:
        self._files = StateFiles(store=store, bucket=bucket)
        self._clock, self._owner, self._ttl_seconds, self._new_id = clock, owner, ttl_seconds, new_id
        self._sightings = Sightings(clock, ttl_seconds)

    async def result(self, job_id: str, fingerprint: str) -> ResultMarker | None:
        """How the job ended, if it did; ask `settles(run)` whether that is an answer to this run.

        Raises `JobIdConflict` when another request used the id, `StorageServiceError`.
        """
        marker = (await self._files.load(self._files.result(job_id), ResultMarker)).content
        if marker is not None:
            refuse_conflict(marker, fingerprint)
        return marker

    @asynccontextmanager
    async def claim(
        self, job_id: str, fingerprint: str, run: int, *, stale_generation: int | None = None, deliveries: int = 1
    ) -> AsyncIterator[Claim]:
        """Hold the job for the context; `stale_generation` is what `park` returned.

        `deliveries` is how many it adds to the job's count: 0 where the same delivery claims the job again.

        Entering raises `ClaimHeld` when another worker holds it and is not known to be gone, or concluded it just now:
        park, then look for a result, then try again. Raises `JobIdConflict` when another request used the id,
        `StorageServiceError`.

        Leaving by any way gives the job back within a few seconds: the claim is released with its counters, or
        removed where `conclude` has run. Where that fails the claim goes stale by itself.
        """
        found, is_stale = await self._look(job_id)
        if found.content is not None:
            refuse_conflict(found.content, fingerprint)
        if _is_held(found) and not is_stale and found.generation != stale_generation:
            raise ClaimHeld(job_id, found.content.owner if found.content else "unknown")
        record = successor(found.content, self._fresh(job_id, fingerprint, run, deliveries))
        claim = Claim(self._files, self._clock, self._ttl_seconds, record)
        async with claim.held(over_generation=found.generation):
            yield claim

    async def park(self, job_id: str) -> int | None:
        """Wait until the job may be had: its claim is gone or released (None), or stale (the generation to claim over).

        Stale means that the generation stood still for the ttl by our own clock. Raises `StorageServiceError`.
        """
        pause = self._ttl_seconds * FIRST_LOOK_SHARE
        while True:
            found, is_stale = await self._look(job_id)
            if not _is_held(found):
                return None
            if is_stale:
                return found.generation
            await self._clock.sleep(pause)
            pause = min(pause * LOOK_GROWTH, self._ttl_seconds * LAST_LOOK_SHARE)

    async def sweep(self, marker: ResultMarker) -> None:
        """Remove what a worker that died after writing `marker` left: its claim, and the checkpoints where completed.

        For redeliveries of concluded jobs. Never touches the claim of a later run. Raises `StorageServiceError`.
        """
        ref = self._files.claim(marker.job_id)
        found = await self._files.load(ref, ClaimRecord)
        if found.content is not None and marker.settles(found.content.run):
            with suppress(PreconditionFailed):
                await self._files.store.delete(ref, if_generation=found.generation)
        if marker.outcome == "completed":
            await clear_checkpoints(self._files, marker.job_id)

    async def _look(self, job_id: str) -> tuple[Stored[ClaimRecord], bool]:
        """The claim, and whether it is held by somebody who is gone."""
        looked_at = self._clock.monotonic()
        found = await self._files.load(self._files.claim(job_id), ClaimRecord)
        if not _is_held(found):
            self._sightings.forget(job_id)
            return found, False
        return found, self._sightings.is_stale(job_id, found.generation, looked_at)

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
            first_seen=now,
            heartbeat_at=now,
        )


def _is_held(found: Stored[ClaimRecord]) -> bool:
    """Whether somebody holds the claim; of one that cannot be read we must believe it."""
    return found.generation != ABSENT and (found.content is None or found.content.held)
