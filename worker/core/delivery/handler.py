"""Interface between the consumer and the job handler, which knows nothing of acks, leases or Pub/Sub."""

from typing import Protocol

from worker.errors import WorkerError
from worker.ports import Delivery, JobSlot


class Attempt(Protocol):
    """The work on one delivery. Returning from `handle` means done; the class of a raised error is the policy.

    Each method may be cancelled, at shutdown or because the lease was lost. A write that must still happen goes into
    the method's own `finally`, shielded and within two seconds; the cancellation is re-raised. The same message may be
    delivered again at any time, even after `handle` or `give_up` has succeeded.
    """

    async def handle(self, slot: JobSlot) -> None:
        """Do the job. On return all its results are durable and published; the consumer then acknowledges the message.

        May raise any exception: `worker.core.delivery.fitness` diagnoses it, and the class of the result is the policy.
        """
        ...

    async def record_failure(self, error: Exception) -> int:
        """Count an attempt durably, which failed by `error`; return the attempts of this run, this one included."""
        ...

    async def record_crash(self, error: WorkerError) -> None:
        """Count a crash durably: the job caused `error`, a fault of the worker, again. Too many crashes end the job."""
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
