"""The cost of a job's failed attempts, kept in its state until the job ends."""

from dataclasses import replace

import structlog

from schemas.state import Waste
from worker.core.jobs.phases import Spent
from worker.core.jobs.state import Claim
from worker.errors import ClaimLost, Undiagnosed

log = structlog.get_logger(__name__)


async def keep_waste(claim: Claim, waste: Waste) -> None:
    """Add the cost of this attempt's failed chunks to the claim. A cost that cannot be stored is only logged."""
    if not waste:
        return
    try:
        await claim.add_waste(waste)
    except (ClaimLost, Undiagnosed) as exc:
        log.warning("waste.not_kept", reason=str(exc), **waste.model_dump())


async def spent_in_all(claim: Claim, spent: Spent) -> Spent:
    """Return what all attempts at a job's run spent, on chunks with a checkpoint and on chunks that failed.

    `spent` is the last attempt's, which may have ended before it came to the chunks of earlier ones. Raises
    `StorageServiceError`.
    """
    chunks = await claim.checkpoints.all()
    if not chunks:
        return replace(spent, waste=claim.record.waste)
    seconds = sum({chunk.index: chunk.audio_seconds for chunk in chunks}.values())
    return Spent(chunks=chunks, audio_seconds=seconds, waste=claim.record.waste)
