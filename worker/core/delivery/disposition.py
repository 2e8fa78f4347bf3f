"""What becomes of a message: error and attempts -> ack, another attempt, or the dead letters."""

from enum import Enum

from worker.errors import Deferred, Fatal, JobFault, QueueNotFound, ServiceDown, WorkerFault


class Disposition(Enum):
    """How a delivery ends."""

    ACK = "ack"
    RETRY = "retry"
    DEAD_LETTER = "dead_letter"


def is_verdict(error: Exception) -> bool:
    """Whether the error says something of the job, rather than of the worker or the moment."""
    return not isinstance(error, Deferred | WorkerFault | ServiceDown | Fatal | QueueNotFound)


def decide(error: Exception | None, attempts: int, max_attempts: int) -> Disposition:
    """The class is the policy. `attempts` counts the job's verdicts so far, this one included."""
    if error is None:
        return Disposition.ACK
    if not is_verdict(error):
        return Disposition.RETRY
    if isinstance(error, JobFault) or attempts >= max_attempts:
        return Disposition.DEAD_LETTER
    return Disposition.RETRY
