"""Pulls as many messages as there are free slots, one pull at a time.

A pull runs in its own task, so that stopping the intake does not abort it: an aborted pull may already have taken
messages, which would come back only after their ack deadline.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence

import structlog

from worker.core.delivery.fuse import Fuse
from worker.core.delivery.slots import Slots
from worker.core.tasks import abandon, backoff_seconds, first_of
from worker.errors import QueueServiceError
from worker.ports import Clock, Delivery, Subscription

# A server that returns an empty answer without waiting must not be polled in a tight loop.
EMPTY_PULL_PAUSE_SECONDS = 0.1
FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 30.0
READINESS_POLL_SECONDS = 1.0

log = structlog.get_logger()


def never_idle() -> str:
    """Return no reason: the default of a consumer that may always pull."""
    return ""


class Intake:
    """The pulling half of the consumer. `run` is an endless background task that the owner starts.

    `why_not` is called before each pull and returns the reason why no job could be done now, or an empty string.
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
        """Reason why nothing may be pulled now, the fuse included; empty if messages may be pulled."""
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
        """Return the deliveries of the pull in flight, after `run` was cancelled; abandon the pull after `grace`."""
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
