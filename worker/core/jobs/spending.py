"""The cost of a job's failed attempts, kept in its state until the job ends."""

import structlog

from schemas.state import Waste
from worker.core.jobs.reporting import Account
from worker.core.jobs.state import Claim
from worker.errors import ClaimLost, Undiagnosed

log = structlog.get_logger(__name__)


async def keep_waste(claim: Claim, waste: Waste) -> None:
    """Add what the chunks of this attempt cost that came to nothing. What cannot be kept is logged, and so lost."""
    if not waste:
        return
    try:
        await claim.add_waste(waste)
    except (ClaimLost, Undiagnosed) as exc:
        log.warning("waste.not_kept", reason=str(exc), **waste.model_dump())


async def spent_before(claim: Claim, account: Account) -> None:
    """Fill in what all attempts at a job that is given up spent: on chunks that stand, and on chunks that failed.

    The last attempt may have ended before it came to the chunks of earlier ones. Raises `StorageServiceError`.
    """
    account.waste = claim.record.waste
    chunks = await claim.checkpoints.all()
    if chunks:
        account.chunks = chunks
        account.audio_seconds = sum({chunk.index: chunk.audio_seconds for chunk in chunks}.values())
