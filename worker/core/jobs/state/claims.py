"""Holding a job: compare-and-swap, heartbeat, counters, release."""

import asyncio

from schemas.state import ClaimRecord, ResultMarker
from worker.core.jobs.state.checkpoints import Checkpoints


class Claim:
    """A job held by this worker; made by `JobStates.claim` and good inside its context only."""

    lost: asyncio.Event
    """Set once another writer's generation stands there, or no heartbeat could be written for the ttl."""
    checkpoints: Checkpoints

    @property
    def record(self) -> ClaimRecord:
        """As last written: `failures`, `crashes` and `deliveries` of this run (this one included), `first_seen`."""
        raise NotImplementedError

    async def verify(self) -> None:
        """Prove by a write that the job is still ours, now. Raises `ClaimLost`, `StorageServiceError`."""
        raise NotImplementedError

    async def record_failure(self) -> int:
        """Count a failure with a verdict and return the new total. Raises `ClaimLost`, `StorageServiceError`."""
        raise NotImplementedError

    async def conclude(self, marker: ResultMarker) -> None:
        """Verify, then write the result marker over the one read at the start. Ends heartbeats and counting.

        Raises `ClaimLost` when another worker owns or has concluded the job, `StorageServiceError`.
        """
        raise NotImplementedError
