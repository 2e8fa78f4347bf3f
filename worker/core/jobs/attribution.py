"""A job's bill, with what costs are compared by: the revision, the group of the roll-out, and how the job went."""

from dataclasses import replace
from typing import Protocol

from worker.core.costs.bill import Attribution, Cost, Prices, bill
from worker.core.jobs.phases import Spent
from worker.core.jobs.reporting import Subject
from worker.core.jobs.routing import RoutingPolicy, in_rollout


class BillingRules(Protocol):
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


def charge(
    subject: Subject,
    spent: Spent,
    processing_seconds: float,
    rules: BillingRules,
    language: str | None = None,
    *,
    has_keyterms: bool = False,
) -> Cost:
    """Return the bill of a run's chunks, finished and failed.

    A message that names no video belongs to no group.
    """
    video_id = subject.echo.video_id
    group = None
    if video_id is not None:
        group = "parakeet" if in_rollout(video_id, rules.routing.rollout_percent) else "deepgram"
    attribution = Attribution(
        revision=rules.revision,
        rollout_group=group,
        processing_time_seconds=processing_seconds or None,
        chunks_total=len(spent.chunks),
        chunks_fallback=spent.chunks_fallback,
    )
    seconds = spent.audio_seconds or 0.0
    cost = bill(spent.chunks, seconds, rules.prices, spent.waste, language, has_keyterms=has_keyterms)
    return replace(cost, attribution=attribution)
