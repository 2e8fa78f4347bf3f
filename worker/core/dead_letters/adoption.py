"""Adoption of messages that the subscription's policy forwarded, and that no worker has given a verdict.

The publisher of such a message still waits for a `failed` event. Once a minute, while the worker is healthy, this task
pulls dead letters until it finds such ones. All others are nacked after the last pull of a look, since a nacked letter
may be the first to come again. Any number of workers may do this: Pub/Sub leases a letter to one of them, and a second
adoption publishes the same ids. A letter that cannot be adopted now is nacked, whatever the error.

For the operator: the worker's account needs roles/pubsub.subscriber on the dead-letter subscription. The subscription
should have no retry policy, which would hide every nacked letter from the console for the length of the backoff.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import structlog

from worker.core.dead_letters.entries import Forwarded, forwarded, is_forwarded
from worker.core.dead_letters.hold import keep_leased, release
from worker.core.tasks import abandon, bounded, caught
from worker.errors import (
    Deferred,
    Fatal,
    QueueServiceError,
    ServiceDown,
    SubscriptionNotFound,
    Undiagnosed,
    WorkerError,
    WorkerFault,
)
from worker.ports import Clock, Delivery, Subscription

LOOK_SECONDS = 60.0
REFUSED_LOOK_SECONDS = 600.0
"""Interval between looks while the subscription is missing or refused."""
FIRST_PULL_MESSAGES, PULL_MESSAGES = 100, 500
PULL_BYTES = 8 * 1024 * 1024
"""Intended size of one pull, whose count is derived from the previous pull."""
LOOK_MESSAGES, LOOK_BYTES = 5_000, 8 * PULL_BYTES
"""Limits of one look: its letters are nacked within `RELEASE_SECONDS`, a thousand in each request."""
NEXT_PULL_SECONDS = 1.0
LEASE_SECONDS = 60
RELEASE_SECONDS = 2.0

OF_ALL_LETTERS = (WorkerFault, ServiceDown, Undiagnosed, Fatal)
"""Errors of the worker or of a service, which concern all letters."""

Item = TypeVar("Item")

log = structlog.get_logger()


class AdoptionCut(Exception):
    """A defect: the adoption of one letter was cancelled by its own code."""


class Adoption:
    """Pulls dead letters and passes forwarded ones to `adopt`. `run` is an endless background task.

    `why_not` returns the reason why the worker can do nothing now, or an empty string; `patience_seconds` as in
    `adopted`.
    """

    def __init__(
        self,
        subscription: Subscription,
        adopt: Callable[[Forwarded], Awaitable[None]],
        *,
        why_not: Callable[[], str],
        patience_seconds: float,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._subscription, self._adopt, self._why_not = subscription, adopt, why_not
        self._patience_seconds = patience_seconds
        self._clock, self._rng = clock, rng
        self._pull_messages = FIRST_PULL_MESSAGES
        self._refused_because = ""

    async def run(self) -> None:
        """Pull once a minute; the first pull comes after a random delay, so that workers take turns."""
        await self._clock.sleep(self._rng.uniform(0.1, 0.4) * LOOK_SECONDS)
        while True:
            began = self._clock.monotonic()
            if not self._why_not():
                error = await caught(self._look())
                if error is not None:  # a defect here must not stop the worker's jobs
                    log.error("adoption.failed", reason=str(error), exc_info=error)
            every = REFUSED_LOOK_SECONDS if self._refused_because else LOOK_SECONDS
            await self._clock.sleep(max(1.0, began + every - self._clock.monotonic()))

    async def _look(self) -> None:
        """Pull while every answer is full and holds no forwarded letter; adopt the forwarded ones."""
        letters, others, left_bytes = list[Forwarded](), list[str](), LOOK_BYTES
        try:
            while not letters and left_bytes > 0 and len(others) < LOOK_MESSAGES:
                most = self._pull_messages
                # An empty answer takes as long as the subscription waits, and the console must not wait for so long.
                pull = bounded(self._pull(most), NEXT_PULL_SECONDS, self._clock) if others else self._pull(most)
                try:
                    deliveries = await pull
                except TimeoutError:
                    break
                letters = [forwarded(delivery) for delivery in deliveries if is_forwarded(delivery)]
                others += [delivery.ack_id for delivery in deliveries if not is_forwarded(delivery)]
                left_bytes -= sum(len(delivery.data) for delivery in deliveries)
                if len(deliveries) < most:
                    break
        finally:
            await self._give_back(others)
        if letters:
            await self._adopt_all(letters)

    async def _pull(self, most: int) -> Sequence[Delivery]:
        try:
            deliveries = await self._subscription.pull(most)
        except (SubscriptionNotFound, QueueServiceError) as exc:
            self._note(exc)
            return ()
        self._note(None)
        if deliveries:
            largest = max(len(delivery.data) for delivery in deliveries)
            self._pull_messages = max(1, min(PULL_MESSAGES, PULL_BYTES // max(1, largest)))
        return deliveries

    async def _adopt_all(self, letters: Sequence[Forwarded]) -> None:
        async with self._leased([letter.original for letter in letters]) as leased:

            async def adopt(letter: Forwarded) -> None:
                await _apart(self._adopt(letter))
                await self._ack(leased.pop(letter.original.message_id))

            outcomes = adopted(letters, adopt, patience_seconds=self._patience_seconds, clock=self._clock)
            async for letter, error in outcomes:
                told = log.bind(message_id=letter.original.message_id, deliveries=letter.deliveries)
                if error is None:
                    told.info("dead_letter.adopted")
                elif isinstance(error, Deferred):
                    told.info("dead_letter.left", reason=str(error))
                else:
                    unexpected = None if isinstance(error, WorkerError) else error
                    told.warning("dead_letter.not_adopted", reason=str(error), left=len(leased), exc_info=unexpected)

    @asynccontextmanager
    async def _leased(self, deliveries: Sequence[Delivery]) -> AsyncIterator[dict[str, str]]:
        """Extend the leases of the ack ids (by message id) inside the block; nack the remaining ones on exit."""
        leased = {delivery.message_id: delivery.ack_id for delivery in deliveries}
        keeping = asyncio.create_task(
            keep_leased(self._subscription, leased.values, LEASE_SECONDS, self._clock), name="adoption-leases"
        )
        try:
            yield leased
        finally:
            abandon(keeping)
            await self._give_back(leased.values())

    async def _give_back(self, ack_ids: Iterable[str]) -> None:
        await release(self._subscription, ack_ids, RELEASE_SECONDS, self._clock)

    async def _ack(self, ack_id: str) -> None:
        try:
            await self._subscription.ack(ack_id)
        except (QueueServiceError, SubscriptionNotFound) as exc:
            log.warning("dead_letter.ack_failed", reason=str(exc))

    def _note(self, error: SubscriptionNotFound | QueueServiceError | None) -> None:
        """Log once that the subscription is missing or refused, and once that it works again."""
        if error is None:
            if self._refused_because:
                log.info("adoption.resumed")
            self._refused_because = ""
        elif isinstance(error, QueueServiceError) and not error.refused:
            log.warning("adoption.pull_failed", reason=str(error))
        else:
            if not self._refused_because:
                log.warning("adoption.refused", reason=str(error), retry_in_seconds=REFUSED_LOOK_SECONDS)
            self._refused_because = str(error)


async def adopted(
    items: Sequence[Item],
    adopt: Callable[[Item], Awaitable[None]],
    *,
    patience_seconds: float,
    clock: Clock,
    on_wait: Callable[[int], object] = lambda _: None,
) -> AsyncIterator[tuple[Item, Exception | None]]:
    """Adopt letters one after another; yield each with its error, or None.

    Letters whose job another worker holds are tried once more after `patience_seconds`, when a dead worker's claim is
    known to be stale; `on_wait` is called with their number first. An error of all letters ends the iteration.
    """
    waiting: list[Item] = []
    for item in items:
        error = await caught(adopt(item))
        if isinstance(error, Deferred):
            waiting.append(item)
            continue
        yield item, error
        if isinstance(error, OF_ALL_LETTERS):
            return
    if waiting:
        on_wait(len(waiting))
        await clock.sleep(patience_seconds)
    for item in waiting:
        error = await caught(adopt(item))
        yield item, error
        if isinstance(error, OF_ALL_LETTERS):
            return


async def _apart(work: Awaitable[None]) -> None:
    """Await the work in its own task, which isolates its log context and its cancellation. Raises `AdoptionCut`."""
    task = asyncio.ensure_future(_awaited(work))
    try:
        await asyncio.wait({task})
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
    if task.cancelled():
        raise AdoptionCut("the adoption ended cancelled although nothing stopped it")
    task.result()


async def _awaited(work: Awaitable[None]) -> None:
    await work
