"""Keeps deliveries leased while their jobs run, and cancels a job whose lease is lost.

One request extends every live lease of a subscription, and one timer watches the deadlines: a hung request cannot hide
a passed deadline.

A lease is counted from the moment before its confirming request was sent. A pull may have waited for minutes, so the
lease of a new delivery is counted from its receipt at first and extended at once, which gives a confirmed deadline.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from worker.core.delivery.intake import by_subscription
from worker.core.tasks import bounded, first_of
from worker.errors import Deferred, QueueServiceError
from worker.ports import Clock, Delivery, Subscription
from worker.telemetry.register import LEASES_LOST

MAX_REQUEST_SECONDS = 10.0
MAX_RETRY_SECONDS = 5.0

log = structlog.get_logger()


class LeaseLost(Deferred):
    """The message may be with another worker: it is not settled and nothing is counted."""

    def __init__(self, message_id: str, reason: str) -> None:
        super().__init__(f"lost the lease of message {message_id}: {reason}")


@dataclass(kw_only=True, slots=True)
class Lease:
    """The lease of one delivery."""

    message_id: str
    task: asyncio.Task[object]
    deadline: float
    """End of the last confirmed extension, in seconds of the monotonic clock."""
    lost: str | None = None
    """Reason why the lease was lost; None while it is valid."""
    is_cancellable: bool = True
    """True while the loss of the lease cancels the task; False once the job has ended."""


class LeaseKeeper:
    """Leases of one worker; the owner starts `renew` and `watch`.

    `seconds` is the subscription's ack deadline (10 to 600). `on_lost` receives the ack id of a lost lease at once,
    before its job has ended.
    """

    def __init__(
        self, subscription: Subscription, *, seconds: int, clock: Clock, on_lost: Callable[[str], object]
    ) -> None:
        self._subscription = subscription
        self._seconds = seconds
        self._clock = clock
        self._on_lost = on_lost
        self._renew_at = clock.monotonic()
        self._leases: dict[str, Lease] = {}
        self._received = asyncio.Event()
        self._requests = asyncio.Lock()

    @contextmanager
    def hold(self, delivery: Delivery) -> Iterator[Lease]:
        """Keep the delivery, which the current task has just received, leased inside the block.

        When the lease is lost, `Lease.lost` is set and the task is cancelled if `is_cancellable`.
        """
        lease = self._leases[delivery.ack_id] = self._receive(delivery)
        try:
            yield lease
        finally:
            self._leases.pop(delivery.ack_id, None)

    async def release(self, ack_ids: Iterable[str]) -> None:
        """Nack the deliveries, one request a subscription, after an extension in flight: it would revert the nack."""
        async with self._requests:
            pass
        nacks = (self._subscription.extend(group, 0) for group in by_subscription(ack_ids))
        for answer in await asyncio.gather(*nacks, return_exceptions=True):
            if isinstance(answer, BaseException):
                raise answer

    async def renew(self) -> None:
        """Extend leases at half time, and a new lease at once, in an endless loop. Raises `SubscriptionNotFound`."""
        while True:
            await first_of(self._received.wait(), self._clock.sleep(self._renew_at - self._clock.monotonic()))
            self._received.clear()
            async with self._requests:
                await self._extend_all()

    async def watch(self) -> None:
        """Cancel the jobs whose last confirmed deadline has passed, in an endless loop."""
        while True:
            # Never too late for a lease received during the sleep: no lease ends earlier than `seconds` after receipt.
            now = self._clock.monotonic()
            await self._clock.sleep(
                min((lease.deadline - now for lease in self._leases.values()), default=self._seconds)
            )
            for ack_id, lease in list(self._leases.items()):
                if lease.deadline <= self._clock.monotonic():
                    self._lose(ack_id, "the last confirmed deadline has passed")

    def _receive(self, delivery: Delivery) -> Lease:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a lease is held by a task")
        self._received.set()
        deadline = self._clock.monotonic() + self._seconds
        return Lease(message_id=delivery.message_id, task=task, deadline=deadline)

    async def _extend_all(self) -> None:
        """Extend every lease; a failing subscription does not cost the other one its leases."""
        sent_at = self._clock.monotonic()
        self._renew_at = sent_at + self._seconds / 2
        await asyncio.gather(*(self._extend(group, sent_at) for group in by_subscription(self._leases)))

    async def _extend(self, ack_ids: list[str], sent_at: float) -> None:
        # Three attempts fit into the half of a lease that remains when its extension is due.
        patience_seconds = min(MAX_REQUEST_SECONDS, self._seconds / 6)
        request = self._subscription.extend(ack_ids, self._seconds)
        try:
            expired = await bounded(request, patience_seconds, self._clock)
        except (QueueServiceError, TimeoutError) as exc:
            self._renew_at = self._clock.monotonic() + min(MAX_RETRY_SECONDS, self._seconds / 30)
            log.warning("lease.extension_failed", leases=len(ack_ids), reason=str(exc))
            return
        for ack_id in ack_ids:
            self._confirm(ack_id, deadline=sent_at + self._seconds, expired=ack_id in expired)
        log.debug("lease.extended", leases=len(ack_ids))

    def _confirm(self, ack_id: str, *, deadline: float, expired: bool) -> None:
        if expired:
            self._lose(ack_id, "the subscription says that it has expired")
        elif ack_id in self._leases:
            self._leases[ack_id].deadline = deadline

    def _lose(self, ack_id: str, reason: str) -> None:
        lease = self._leases.pop(ack_id, None)
        if lease is not None:
            lease.lost = reason
            if lease.is_cancellable:
                lease.task.cancel()
            self._on_lost(ack_id)
            LEASES_LOST.add()
            log.warning("lease.lost", message_id=lease.message_id, reason=reason)
