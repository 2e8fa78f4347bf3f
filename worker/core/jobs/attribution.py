"""A job's bill, with what costs are compared by: the revision, the group of the roll-out, and how the job went."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from schemas.state import Checkpoint
from worker.core.costs.bill import Attribution, Cost, Prices, bill
from worker.core.jobs.reporting import Account, Subject
from worker.core.jobs.routing import RoutingPolicy, in_rollout


class Rules(Protocol):
    """The settings that a bill depends on."""

    @property
    def revision(self) -> str:
        """The deployment's revision; empty where nothing names it."""
        ...

    @property
    def routing(self) -> RoutingPolicy:
        """Its `rollout_percent` decides the group."""
        ...

    @property
    def prices(self) -> Prices:
        """List prices, or the operator's own."""
        ...


def charge(account: Account, subject: Subject, chunks: Sequence[Checkpoint], seconds: float, rules: Rules) -> Cost:
    """Note the bill of the chunks, of so much audio, in the account, and return it.

    A message that names no video belongs to no group.
    """
    video_id = subject.echo.video_id
    group = None
    if video_id is not None:
        group = "parakeet" if in_rollout(video_id, rules.routing.rollout_percent) else "deepgram"
    attribution = Attribution(
        revision=rules.revision,
        rollout_group=group,
        processing_time_seconds=account.seconds or None,
        chunks_total=len(account.chunks),
        chunks_fallback=sum(1 for chunk in account.chunks if chunk.fallback_reason),
    )
    account.cost = cost = replace(bill(chunks, seconds, rules.prices, account.waste), attribution=attribution)
    return cost
