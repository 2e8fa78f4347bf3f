"""Work that ends as soon as the claim it is done under is lost."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from worker.core.jobs.state import Claim
from worker.core.jobs.tasks import together
from worker.errors import ClaimLost


@asynccontextmanager
async def while_owned(claim: Claim) -> AsyncIterator[None]:
    """Cancel the block and raise `ClaimLost` as soon as the claim is lost."""
    async with together() as group:
        watch = group.create_task(_raise_when_lost(claim))
        yield
        watch.cancel()


async def _raise_when_lost(claim: Claim) -> None:
    await claim.lost.wait()
    raise ClaimLost(claim.record.job_id)
