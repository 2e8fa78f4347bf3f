"""What the consumer asks of whoever does the work. It knows nothing of acks, leases or Pub/Sub."""

from typing import Protocol

from worker.errors import WorkerError
from worker.ports import Delivery, JobSlot


class JobAttempt(Protocol):
    """One try at the job of one delivery; returning means done, the class of a raised error is the policy.

    Any of the three may be cancelled, at shutdown or because the lease was lost: whatever must still be written is
    then written in the method's own `finally`, shielded and within two seconds, and the cancellation is re-raised.
    The same message may be delivered again at any time, also after `handle` or `give_up` succeeded.
    """

    async def handle(self, slot: JobSlot) -> None:
        """Do the job; on return everything it owes is durable and published, and the message is acknowledged.

        Raises anything: `worker.core.delivery.fitness` diagnoses the error, and its class is the policy. The error of
        a child task may be raised as it is.
        """
        ...

    async def record_failure(self) -> int:
        """Count an attempt durably; return how many this run of the job has now, this one included."""
        ...

    async def record_crash(self, error: WorkerError) -> None:
        """Count a crash durably: the job broke its worker again, by `error`. Too many of them end the job."""
        ...

    async def give_up(self, error: Exception, attempts: int) -> None:
        """Write the dead letter, the failed and cost events and the failure marker, all durable on return.

        `attempts` is `record_failure`'s answer, or 1 for a permanent error, which is not counted. The consumer acks
        afterwards; if this raises, the message is handed back and the next attempt will be asked again.
        """
        ...


class JobHandler(Protocol):
    """Begins the attempts."""

    def attempt(self, delivery: Delivery) -> JobAttempt:
        """Begin one; never raises, reads or waits for nothing."""
        ...
