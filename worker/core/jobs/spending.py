"""The cost of what a job does not use, kept in its state until the job ends."""

from dataclasses import replace

import structlog

from schemas.state import Waste
from worker.core.costs.bill import as_waste
from worker.core.jobs.phases import Spent
from worker.core.jobs.state import Claim
from worker.errors import ClaimLost, Undiagnosed

log = structlog.get_logger(__name__)


async def keep_waste(claim: Claim, waste: Waste) -> None:
    """Add the cost of this attempt's lost chunks to the claim. A cost that cannot be stored is only logged."""
    if not waste:
        return
    try:
        await claim.add_waste(waste)
    except (ClaimLost, Undiagnosed) as exc:
        log.warning("waste.not_kept", reason=str(exc), **waste.model_dump())


async def wasted_in_all(claim: Claim) -> Waste:
    """Return the cost of all attempts at a completed job's run, beside that of the chunks which it uses.

    The chunks of earlier attempts are of no use where a setting, the model or the decoder has changed since. Raises
    `StorageServiceError`.
    """
    return claim.record.waste + as_waste(await claim.checkpoints.unused())


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
