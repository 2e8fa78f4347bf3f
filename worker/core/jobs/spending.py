"""A job's bill, and the cost of what it does not use, which its state keeps until it ends."""

from dataclasses import replace

import structlog

from schemas.codes import EventType
from schemas.state import ResultMarker, StoredMessage, Waste
from worker.core.costs.bill import Attribution, Cost, Prices, as_waste, bill
from worker.core.jobs.phases import Received, Spent
from worker.core.jobs.reporting import Subject
from worker.core.jobs.routing import in_rollout
from worker.core.jobs.state import Claim
from worker.core.jobs.tools import JobRules
from worker.errors import ClaimLost, Undiagnosed

MOST_KEPT_CHARACTERS = 1 << 18
"""The size of the cost events in a result marker, which must stay far below 8 MiB: about 200 events of usual jobs."""

log = structlog.get_logger(__name__)


def charge(subject: Subject, phase: Received, spent: Spent, processing_seconds: float, rules: JobRules) -> Cost:
    """Return the bill of a run, with what costs are compared by: the revision, the group of the roll-out, the chunks.

    A message that names no video belongs to no group.
    """
    video_id, group = subject.echo.video_id, None
    if video_id is not None:
        group = "parakeet" if in_rollout(video_id, rules.routing.rollout_percent) else "deepgram"
    attribution = Attribution(
        revision=rules.revision,
        rollout_group=group,
        processing_time_seconds=processing_seconds or None,
        chunks_total=len(spent.chunks),
        chunks_fallback=spent.chunks_fallback,
    )
    return replace(bill_of(phase, spent, rules.prices), attribution=attribution)


def bill_of(phase: Received, spent: Spent, prices: Prices) -> Cost:
    """Return the bill of a run's chunks, finished and failed."""
    seconds, has_keyterms = spent.audio_seconds or 0.0, bool(phase.keyterms)
    return bill(spent.chunks, seconds, prices, spent.waste, phase.language, has_keyterms=has_keyterms)


async def keep_waste(claim: Claim, failed: Waste) -> None:
    """Add the cost of this attempt's lost chunks to the claim. A cost that cannot be stored is only logged.

    `failed` is that of the chunks which no engine transcribed; the others could not be stored.
    """
    if not (waste := failed + as_waste(claim.checkpoints.unkept)):
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


def costs_to_keep(marker: ResultMarker | None) -> tuple[StoredMessage, ...]:
    """Return the cost events that the marker of the next run keeps of this one: what completed runs cost was spent.

    A failed run's cost is not among them, for the bill of the next run holds its chunks.
    """
    if marker is None:
        return ()
    kept, characters = [], 0
    for message in reversed((*marker.earlier_costs, *marker.messages)):
        is_cost = message.attributes.get("event_type") == EventType.COST.value
        if is_cost and message.attributes.get("status") == "completed":
            characters += len(message.data)
            if characters > MOST_KEPT_CHARACTERS:
                break
            kept.append(message)
    return tuple(reversed(kept))
