"""Holds dead letters while an operator looks at them: leased from the first pull on, released at the end.

Looking never consumes. It is best effort all the same: a subscription promises no complete answer, and what another
console holds is not seen.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from worker.core.delivery.dead_letters import Entry, fold
from worker.core.delivery.timing import abandon, bounded
from worker.errors import QueueServiceError
from worker.ports import Clock, Delivery, Subscription

EMPTY_ANSWERS = 3
"""Pub/Sub may answer nothing although there is something; three times in a row is taken for the end."""
PULL_MESSAGES = 100
RELEASE_SECONDS = 10.0

log = structlog.get_logger()


class Holding:
    """The dead letters that are held. Made by `hold_dead_letters`."""

    def __init__(self, subscription: Subscription, *, lease_seconds: int, clock: Clock) -> None:
        self._subscription = subscription
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._held: dict[str, Delivery] = {}

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What is held at this moment, folded."""
        return fold(self._held.values())

    async def gather(self, most: int) -> None:
        """Pull until three empty answers in a row, or until that many messages are held."""
        empty = 0
        while empty < EMPTY_ANSWERS and len(self._held) < most:
            deliveries = await self._subscription.pull(min(PULL_MESSAGES, most - len(self._held)))
            empty = 0 if deliveries else empty + 1
            # A message that comes again has outlived its lease: only its newest ack id counts.
            self._held.update({delivery.message_id: delivery for delivery in deliveries})

    async def settle(self, entry: Entry) -> None:
        """Ack every copy of it. One that cannot be acked now stays in the dead letters, which loses nothing."""
        for delivery in entry.copies:
            held = self._held.pop(delivery.message_id, delivery)
            try:
                await self._subscription.ack(held.ack_id)
            except QueueServiceError as exc:
                log.warning("dead_letter.ack_failed", dead_letter_id=entry.dead_letter_id, reason=str(exc))

    async def keep(self) -> None:
        """Extend every lease at half time, for ever."""
        while True:
            await self._clock.sleep(self._lease_seconds / 2)
            try:
                await self._extend(self._lease_seconds)
            except QueueServiceError as exc:
                log.warning("dead_letter.extension_failed", reason=str(exc))

    async def release(self) -> None:
        """Nack what is still held, within bounds; otherwise the leases run out."""
        try:
            await bounded(self._extend(0), RELEASE_SECONDS, self._clock)
        except (QueueServiceError, TimeoutError) as exc:
            log.warning("dead_letter.release_failed", reason=str(exc))

    async def _extend(self, seconds: int) -> None:
        ack_ids = [delivery.ack_id for delivery in self._held.values()]
        if ack_ids:
            await self._subscription.extend(ack_ids, seconds)


@asynccontextmanager
async def hold_dead_letters(
    subscription: Subscription, *, lease_seconds: int, most: int, clock: Clock
) -> AsyncIterator[Holding]:
    """Gather up to `most` messages and hold them for the length of the block; `lease_seconds` is the ack deadline.

    Raises `QueueServiceError` or `SubscriptionNotFound` where pulling does.
    """
    holding = Holding(subscription, lease_seconds=lease_seconds, clock=clock)
    keeping = asyncio.create_task(holding.keep(), name="dead-letter-leases")
    try:
        await holding.gather(most)
        yield holding
    finally:
        abandon(keeping)
        await holding.release()
