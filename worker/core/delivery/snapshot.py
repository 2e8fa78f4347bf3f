"""What health endpoints see of the consumer."""

from dataclasses import dataclass

from worker.core.delivery.fitness import PartTest
from worker.core.delivery.fuse import FuseStatus


@dataclass(frozen=True, kw_only=True, slots=True)
class ConsumerSnapshot:
    """What the consumer is doing, for health endpoints. `unsettled` are all deliveries held, parked ones included."""

    jobs: int
    parked: int
    free_slots: int
    unsettled: int
    pull_failures_in_a_row: int
    pull_failure: str
    """Why the last pull failed; empty after one that did not."""
    parts: tuple[PartTest, ...]
    fuse: FuseStatus
    intake_stopped_because: str
    """Empty while messages are taken in."""
    stopping: bool
