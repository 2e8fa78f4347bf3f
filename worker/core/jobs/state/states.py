"""The door to job state: results, claims, parking."""

from contextlib import AbstractAsyncContextManager

from schemas.state import ResultMarker
from worker.core.jobs.state.claims import Claim
from worker.ports import Clock, ObjectStore


class JobStates:
    """Every job's state in one bucket, as seen by the worker `owner`."""

    def __init__(self, store: ObjectStore, bucket: str, clock: Clock, owner: str, ttl_seconds: float) -> None:
        self._store, self._bucket, self._clock, self._owner, self._ttl = store, bucket, clock, owner, ttl_seconds

    async def result(self, job_id: str, fingerprint: str) -> ResultMarker | None:
        """How the job ended, if it did; ask `settles(run)` whether that is an answer to this run.

        Raises `JobIdConflict` when another request used the id, `StorageServiceError`.
        """
        raise NotImplementedError

    def claim(
        self, job_id: str, fingerprint: str, run: int, *, stale_generation: int | None = None
    ) -> AbstractAsyncContextManager[Claim]:
        """Hold the job for the context; `stale_generation` is what `park` returned.

        Entering raises `ClaimHeld` when another worker holds it at any other generation, or concluded it just now:
        park, then look for a result, then try again. Raises `JobIdConflict` when another request used the id.

        Leaving by any way gives the job back within a few seconds: the claim is released with its counters, or
        removed where `conclude` has run. Where that fails the claim goes stale by itself.
        """
        raise NotImplementedError

    async def park(self, job_id: str) -> int | None:
        """Wait until the job may be had: its claim is gone or released (None), or stale (the generation to claim over).

        Stale means that the generation stood still for the ttl by our own clock.
        """
        raise NotImplementedError

    async def sweep(self, marker: ResultMarker) -> None:
        """Remove what a worker that died after writing `marker` left: its claim, and the checkpoints where completed.

        For redeliveries of concluded jobs. Never touches the claim of a later run.
        """
        raise NotImplementedError
