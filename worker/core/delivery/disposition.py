"""The step that follows for a delivery: a pure function of the error and the lease."""

from enum import Enum

from worker.errors import Deferred, Fatal, JobFault, ServiceDown, WorkerFault


class Step(Enum):
    """The consumer's action on a delivery whose handler has ended."""

    ACK = "ack"
    """The job is done."""
    GIVE_UP = "give up"
    """Dead letter and terminal events, then acknowledge."""
    COUNT = "count"
    """Count an attempt; nack, or give up where it was the last."""
    HAND_BACK = "hand back"
    """Nack and count nothing."""
    LET_GO = "let go"
    """The lease is lost: the message is another worker's by now, and nothing that is sent for it counts."""


class Outcome(Enum):
    """How a delivery ended; every delivery has exactly one. The values label metrics and log events."""

    ACK = "ack"
    DEAD_LETTER = "dead_letter"
    RETRY = "retry"
    """Nacked, one attempt counted."""
    DEFERRED = "deferred"
    """Nacked, nothing counted."""
    LOST = "lost"
    """The lease was lost."""
    STOPPED = "stopped"
    """The worker was told to stop, or died; its last act is to nack what is left."""


def next_step(error: Exception | None, *, lease_is_lost: bool) -> Step:
    """Return what follows. The class of the error is the policy; an error of no such class counts.

    A job that is done is acknowledged whether or not its lease still stands: what it owes is durable. What a job
    raises after its lease was lost says nothing of the job: it was cancelled.
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
