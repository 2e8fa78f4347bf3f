"""Next step for a delivery, as a pure function of its error and its lease."""

from enum import Enum

from worker.errors import Deferred, Fatal, JobFault, ServiceDown, WorkerFault


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
    """Return the next step. The class of the error is the policy; an error without a policy class counts an attempt.

    A job that is done is acknowledged even if its lease is lost, since its results are durable. An error after the
    lease was lost is not the job's: the job was cancelled.
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
