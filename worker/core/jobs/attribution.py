"""Which revision did a job, and in which group of the roll-out: what costs are compared by."""

from dataclasses import replace
from datetime import datetime

from worker.core.jobs.costing import Attribution, Cost
from worker.core.jobs.reporting import Account
from worker.core.jobs.routing import in_rollout


def attributed(
    cost: Cost, account: Account, *, revision: str, video_id: str | None, rollout_percent: float, now: datetime
) -> Cost:
    """Return the cost with what a canary is judged by. `video_id` is None where the message names no video."""
    group = None
    if video_id is not None:
        group = "parakeet" if in_rollout(video_id, rollout_percent) else "deepgram"
    attribution = Attribution(
        revision=revision,
        rollout_group=group,
        processing_time_seconds=(now - account.started_at).total_seconds(),
        chunks_total=len(account.chunks),
        chunks_fallback=sum(1 for chunk in account.chunks if chunk.fallback_reason),
    )
    return replace(cost, attribution=attribution)
