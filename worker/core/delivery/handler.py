"""Interface between the consumer and the job handler, which knows nothing of acks, leases or Pub/Sub.

Beside it the consumer's next step after a handler has ended: a pure function.
"""

from enum import Enum
from typing import Protocol

from worker.errors import Deferred, Fatal, JobFault, ServiceDown, WorkerError, WorkerFault
from worker.ports import Delivery, JobSlot


class Attempt(Protocol):
    """The work on one delivery.

    Each method may be cancelled, at shutdown or because the lease was lost. A write that must still happen goes into
    the method's own `finally`, shielded and within two seconds; the cancellation is re-raised. The same message may be
    delivered again at any time, even after `handle` or `give_up` has succeeded.
    """

    async def handle(self, slot: JobSlot) -> None:
        """Do the job. On return its results are durable and published; the consumer then acknowledges the message.

        May raise any exception: `Fitness.diagnose` returns an error whose class is the policy.
        """
        ...

    async def record_failure(self, error: Exception) -> int:
        """Count an attempt durably; return the attempts of this run, this one included."""
        ...

    async def record_crash(self, error: WorkerError) -> None:
        """Count a crash durably: the job caused a fault of the worker again. Too many crashes end the job."""
        ...

    async def give_up(self, error: Exception, attempts: int) -> None:
        """Write the dead letter, the failed and cost events and the failure marker; all are durable on return.

        `attempts` is the result of `record_failure`, or 1 for a permanent error, which is not counted. The consumer
        acknowledges afterwards. If this raises, the message is nacked and the next delivery gives the job up again.
        """
        ...


class JobHandler(Protocol):
    """Factory of attempts."""

    def attempt(self, delivery: Delivery) -> Attempt:
        """Create the attempt of one delivery. Does no I/O and never raises."""
        ...


class Step(Enum):
    """Action of the consumer after a handler has ended."""

    ACK = "ack"
    """The job is done."""
    GIVE_UP = "give up"
    """Dead letter and terminal events, then acknowledge."""
    COUNT = "count"
    """Count an attempt; nack, or give up where it was the last."""
    HAND_BACK = "hand back"
    """Nack and count nothing."""
    LET_GO = "let go"
    """The lease is lost: another worker may have the message, so it is neither acknowledged nor nacked."""


class DeliveryOutcome(Enum):
    """The end of a delivery; every delivery has exactly one. The values label metrics and log events."""

    ACK = "ack"
    DEAD_LETTER = "dead_letter"
    RETRY = "retry"
    """Nacked, one attempt counted."""
    DEFERRED = "deferred"
    """Nacked, nothing counted."""
    LOST = "lost"
    """The lease was lost."""
    STOPPED = "stopped"
    """The worker was stopping; the shutdown nacks the message."""


def next_step(error: Exception | None, *, lease_is_lost: bool) -> Step:
    """Return the next step. An error without a policy class counts an attempt.

    A job that is done is acknowledged even if its lease is lost, since its results are durable. An error after the loss
    is not the job's, which was cancelled.
    """
    match error:
        case None:
            return Step.ACK
        case _ if lease_is_lost:
            return Step.LET_GO
        case JobFault():
            return Step.GIVE_UP
        case Deferred() | WorkerFault() | ServiceDown() | Fatal():
            return Step.HAND_BACK
        case _:
            return Step.COUNT
