"""Pulls as many messages as there are free slots, one pull at a time; where there are two subscriptions, as one.

A pull runs in its own task, so that stopping the intake does not abort it: an aborted pull may already have taken
messages, which would come back only after their ack deadline.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from typing import TypeAlias

import structlog

from worker.core.delivery.fuse import Fuse
from worker.core.delivery.slots import Slots
from worker.core.tasks import abandon, backoff_seconds, first_of
from worker.errors import QueueServiceError
from worker.ports import Clock, Delivery, Subscription, SubscriptionFacts

# A server that returns an empty answer without waiting must not be polled in a tight loop.
EMPTY_PULL_PAUSE_SECONDS = 0.1
FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 0.5, 30.0
READINESS_POLL_SECONDS = 1.0
HEAD_START_SECONDS = 0.1
"""A message that is ready on the urgent subscription normally arrives within that time."""
MOST_URGENT_IN_A_ROW = 8
PAUSE_SECONDS = 0.1
"""Wait for the other subscription where one has just returned nothing."""
UNCLAIMED_SECONDS = 1.0
_MARK = "urgent "
"""Prefix of the ack ids of urgent deliveries; the service's own ids contain no spaces."""

_Pull: TypeAlias = asyncio.Task[Sequence[Delivery]]

log = structlog.get_logger()


class Intake:
    """The pulling half of the consumer; the owner starts `run`.

    `why_not` returns the reason why no job can be done now, or an empty string.
    """

    def __init__(
        self,
        subscription: Subscription,
        slots: Slots,
        fuse: Fuse,
        why_not: Callable[[], str],
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._subscription = subscription
        self._slots = slots
        self._fuse = fuse
        self._why_not = why_not
        self._clock = clock
        self._rng = rng
        self._under_way: asyncio.Task[Sequence[Delivery]] | None = None
        self.failures_in_a_row, self.failure = 0, ""
        """Failed pulls since the last successful one, and the reason of the last one."""

    @property
    def stopped_because(self) -> str:
        """Reason why nothing may be pulled now, the fuse included, or an empty string."""
        return self._fuse.status.reason or self._why_not()

    async def run(self, accept: Callable[[Sequence[Delivery]], None]) -> None:
        """Pass pulled deliveries to `accept` in an endless loop, with backoff after transport errors.

        Raises `SubscriptionNotFound`.
        """
        while True:
            await self._fuse.wait_closed()
            await self._wait_until_ready()
            free = await self._slots.wait_free()
            if not self.stopped_because:
                await self._pull(free, accept)

    async def finish(self, grace: Callable[[], Awaitable[None]]) -> Sequence[Delivery]:
        """Return what the pull in flight brings within `grace`, after `run` was cancelled."""
        pull, self._under_way = self._under_way, None
        if pull is None:
            return ()
        await first_of(asyncio.wait({pull}), grace())
        if not pull.done():
            abandon(pull)
            log.info("pull.abandoned")  # as at every stop that meets an empty queue
            return ()
        if error := pull.exception():
            log.warning("pull.failed", reason=str(error))
            return ()
        return pull.result()

    async def _wait_until_ready(self) -> None:
        told = ""
        while reason := self._why_not():
            if reason != told:
                log.error("intake.stopped", reason=reason)
            told = reason
            await self._clock.sleep(READINESS_POLL_SECONDS)
        if told:
            log.info("intake.resumed")

    async def _pull(self, max_messages: int, accept: Callable[[Sequence[Delivery]], None]) -> None:
        pull = self._under_way = asyncio.create_task(self._fetch(max_messages), name="pull")
        await asyncio.wait({pull})
        self._under_way = None
        try:
            deliveries = pull.result()
        except QueueServiceError as exc:
            await self._wait_out(exc)
            return
        self.failures_in_a_row, self.failure = 0, ""
        accept(deliveries)
        if not deliveries:
            await self._clock.sleep(EMPTY_PULL_PAUSE_SECONDS)

    async def _fetch(self, max_messages: int) -> Sequence[Delivery]:
        return await self._subscription.pull(max_messages)

    async def _wait_out(self, error: QueueServiceError) -> None:
        self.failures_in_a_row, self.failure = self.failures_in_a_row + 1, str(error)
        failures = self.failures_in_a_row
        seconds = backoff_seconds(failures, base=FIRST_BACKOFF_SECONDS, most=LONGEST_BACKOFF_SECONDS, rng=self._rng)
        log.warning("pull.failed", reason=str(error), failures_in_a_row=failures, retry_in_seconds=seconds)
        await self._clock.sleep(seconds)


class Source(Enum):
    """The two subscriptions."""

    URGENT = "urgent"
    PLAIN = "plain"


def order_of(urgent_in_a_row: int, *, urgent_rests: bool) -> tuple[Source, ...]:
    """Return the subscriptions to pull, the leading one first.

    `urgent_in_a_row` counts urgent messages since the plain subscription last answered; `urgent_rests` after a failure.
    """
    if urgent_rests:
        return (Source.PLAIN,)
    if urgent_in_a_row >= MOST_URGENT_IN_A_ROW:
        return (Source.PLAIN, Source.URGENT)
    return (Source.URGENT, Source.PLAIN)


def by_subscription(ack_ids: Iterable[str]) -> list[list[str]]:
    """Return the ack ids of each subscription that delivered any: a request of its own, since each fails by itself."""
    plain, urgent = list[str](), list[str]()
    for ack_id in ack_ids:
        (urgent if ack_id.startswith(_MARK) else plain).append(ack_id)
    return [group for group in (plain, urgent) if group]


class UrgentFirst:
    """`worker.ports.Subscription` over two of them, urgent messages first; one caller pulls at a time.

    When a slot becomes free, the urgent subscription is pulled alone for `HEAD_START_SECONDS`. Then both pulls are in
    flight, and whichever answers first is delivered: an empty subscription delays no job of the other. After
    `MOST_URGENT_IN_A_ROW` urgent messages the plain subscription leads once, so that urgent jobs do not starve others.
    A failed pull of the urgent subscription is logged and repeated with backoff while plain messages go on; it is
    raised only where the subscription does not exist.

    A pull in flight is cancelled when the last slot is taken: another worker may have a free slot for its message. One
    that the server sends in these milliseconds comes back after its ack deadline.

    The plain subscription has no filter, so every urgent message is delivered on both. The second delivery finds the
    first one's claim or result and costs no engine time.
    """

    def __init__(self, urgent: Subscription, plain: Subscription, clock: Clock, rng: random.Random) -> None:
        self._of: Mapping[Source, Subscription] = {Source.URGENT: urgent, Source.PLAIN: plain}
        self._clock, self._rng = clock, rng
        self._in_flight: dict[Source, _Pull] = {}
        self._urgent_in_a_row = 0
        self._rests_until = float("-inf")
        self._unclaimed: set[_Pull] = set()
        self.urgent_failures, self.urgent_failure = 0, ""
        """Failed pulls of the urgent subscription since its last answer, and the reason of the last one."""

    async def facts(self) -> SubscriptionFacts:
        """Return the plain subscription's properties, with the shorter ack deadline of the two."""
        plain, urgent = await self._of[Source.PLAIN].facts(), await self._of[Source.URGENT].facts()
        seconds = min(plain.ack_deadline_seconds, urgent.ack_deadline_seconds)
        return replace(plain, ack_deadline_seconds=seconds, exactly_once=plain.exactly_once or urgent.exactly_once)

    async def pull(self, max_messages: int) -> Sequence[Delivery]:
        """Return what the first subscription to answer has; if both have answered, urgent messages first.

        Raises what the plain subscription raises.
        """
        order = order_of(self._urgent_in_a_row, urgent_rests=self._clock.monotonic() < self._rests_until)
        if self._start(order[0], max_messages) and len(order) > len(self._in_flight):
            leader = self._in_flight[order[0]]
            await first_of(asyncio.wait({leader}), self._clock.sleep(HEAD_START_SECONDS))
        if not self._has_messages(order[0]):
            for source in order[1:]:
                self._start(source, max_messages)
        await self._wait_for_an_answer(order)
        deliveries = self._collect()
        if len(deliveries) >= max_messages:
            self.cancel_pulls()
        return deliveries

    async def extend(self, ack_ids: Sequence[str], seconds: int) -> frozenset[str]:
        """Set the leases' ends, each on its own subscription; 0 is a nack."""
        expired = set[str]()
        for group in by_subscription(ack_ids):
            if not group[0].startswith(_MARK):
                expired |= await self._of[Source.PLAIN].extend(group, seconds)
                continue
            urgent = [ack_id.removeprefix(_MARK) for ack_id in group]
            expired |= {_MARK + ack_id for ack_id in await self._of[Source.URGENT].extend(urgent, seconds)}
        return frozenset(expired)

    async def ack(self, ack_id: str) -> None:
        """Acknowledge on the delivery's own subscription."""
        source = Source.URGENT if ack_id.startswith(_MARK) else Source.PLAIN
        await self._of[source].ack(ack_id.removeprefix(_MARK))

    async def tend(self) -> None:
        """Nack messages that arrived while nothing may be pulled, in an endless loop; when cancelled, end all pulls."""
        try:
            while True:
                await self._clock.sleep(UNCLAIMED_SECONDS)
                await self._return_unclaimed()
        finally:
            self.cancel_pulls()

    def cancel_pulls(self) -> None:
        """Cancel the pulls in flight."""
        for pull in self._in_flight.values():
            abandon(pull)
        self._in_flight.clear()

    def _start(self, source: Source, max_messages: int) -> bool:
        """Start a pull unless one is in flight; return True if so. Urgent messages come one by one."""
        if source in self._in_flight:
            return False
        most = 1 if source is Source.URGENT else max_messages
        self._in_flight[source] = asyncio.create_task(self._fetch(source, most), name=f"pull-{source.value}")
        return True

    async def _fetch(self, source: Source, max_messages: int) -> Sequence[Delivery]:
        deliveries = await self._of[source].pull(max_messages)
        if source is Source.PLAIN:
            return deliveries
        return [replace(delivery, ack_id=_MARK + delivery.ack_id) for delivery in deliveries]

    def _has_messages(self, source: Source) -> bool:
        pull = self._in_flight[source]
        return pull.done() and not pull.cancelled() and not pull.exception() and bool(pull.result())

    async def _wait_for_an_answer(self, order: Sequence[Source]) -> None:
        leader = self._in_flight[order[0]]
        if self._has_messages(order[0]):
            return
        pulls = {pull for pull in self._in_flight.values() if not (pull is leader and pull.done())}
        if not pulls:
            return
        answered = asyncio.wait(pulls, return_when=asyncio.FIRST_COMPLETED)
        if len(pulls) == len(Source):
            await answered
        else:  # the other subscription must not wait for as long as the server holds this pull
            await first_of(answered, self._clock.sleep(PAUSE_SECONDS))

    def _collect(self) -> list[Delivery]:
        deliveries = self._collect_urgent()
        plain = self._in_flight.get(Source.PLAIN)
        if plain is not None and plain.done() and not (deliveries and plain.exception()):
            del self._in_flight[Source.PLAIN]
            self._urgent_in_a_row = 0
            deliveries += plain.result()
        return deliveries

    def _collect_urgent(self) -> list[Delivery]:
        pull = self._in_flight.get(Source.URGENT)
        if pull is None or not pull.done():
            return []
        del self._in_flight[Source.URGENT]
        try:
            deliveries = list(pull.result())
        except QueueServiceError as exc:
            self.urgent_failures, self.urgent_failure = self.urgent_failures + 1, str(exc)
            seconds = backoff_seconds(
                self.urgent_failures, base=FIRST_BACKOFF_SECONDS, most=LONGEST_BACKOFF_SECONDS, rng=self._rng
            )
            self._rests_until = self._clock.monotonic() + seconds
            log.warning("pull.urgent_failed", reason=str(exc), retry_in_seconds=seconds)
            return []
        self.urgent_failures, self.urgent_failure = 0, ""
        self._urgent_in_a_row += len(deliveries)
        return deliveries

    async def _return_unclaimed(self) -> None:
        """Nack the answers that were there at the last call already, uncollected."""
        done = {pull for pull in self._in_flight.values() if pull.done()}
        old, self._unclaimed = done & self._unclaimed, done
        for source, pull in list(self._in_flight.items()):
            if pull not in old:
                continue
            del self._in_flight[source]
            if pull.exception() or not pull.result():
                continue
            ack_ids = [delivery.ack_id for delivery in pull.result()]
            log.info("delivery.surplus", count=len(ack_ids))
            try:
                await self.extend(ack_ids, 0)
            except QueueServiceError as exc:
                log.warning("delivery.nack_failed", reason=str(exc))
