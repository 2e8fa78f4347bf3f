"""Snapshot of the consumer for health endpoints."""

from dataclasses import dataclass

from worker.core.delivery.fitness import PartTest
from worker.core.delivery.fuse import FuseStatus


@dataclass(frozen=True, kw_only=True, slots=True)
class ConsumerSnapshot:
    """State of the consumer. `unsettled` counts all deliveries held, including parked ones."""

    jobs: int
    parked: int
    free_slots: int
    unsettled: int
    pull_failures_in_a_row: int
    pull_failure: str
    """Reason why the last pull failed; empty if it did not."""
    urgent_pull_failures_in_a_row: int = 0
    urgent_pull_failure: str = ""
    """Reason why the last pull of the urgent subscription failed; empty if it did not."""
    parts: tuple[PartTest, ...]
    fuse: FuseStatus
    intake_stopped_because: str
    """Empty while messages are pulled."""
    stopping: bool
