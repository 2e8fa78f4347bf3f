"""Holds dead letters while an operator works on them: leased from the first pull on, released at the end.

Reading never consumes. It is best effort: a subscription guarantees no complete answer, and letters held by another
console are not delivered. Facts are kept in memory, messages in a spool.
"""

import asyncio
import pickle
import tempfile
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from worker.core.dead_letters.entries import DeadLetterEntry, Letter, entry_of, fold, read
from worker.core.tasks import abandon, bounded
from worker.errors import QueueServiceError, SubscriptionNotFound
from worker.ports import Clock, Delivery, Subscription

EMPTY_ANSWERS = 3
"""Number of consecutive empty pulls taken for the end: Pub/Sub may return nothing although messages remain."""
FIRST_PULL_MESSAGES, PULL_MESSAGES = 4, 100
PULL_BYTES = 10 * 1024 * 1024
"""Intended size of one pull, whose count is derived from the previous pull; `EMPTY_ANSWERS` may be in flight."""
MOST_BYTES = 1024 * 1024 * 1024
RELEASE_SECONDS = 10.0
MEMORY_BYTES = 16 * 1024 * 1024
"""Size above which the spool is on disk, in an unnamed file that only this process can read."""

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True, slots=True)
class HoldLimits:
    """Limits of what is held at once, and the folder of the spool."""

    messages: int
    bytes: int = MOST_BYTES
    folder: Path | None = None


class Spool:
    """File of messages below `folder`, so that thousands of large ones need no memory; it grows until it is closed."""

    def __init__(self, folder: Path | None = None) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=MEMORY_BYTES, dir=str(folder) if folder else None)  # noqa: SIM115 - `close` does
        self.bytes = 0
        """Total size of the messages put into the spool."""

    def put(self, delivery: Delivery) -> int:
        """Append a message; return its position. Raises `OSError`."""
        place = self.bytes
        self._file.seek(place)
        pickle.dump(delivery, self._file)
        self.bytes = self._file.tell()
        return place

    def get(self, place: int, ack_id: str) -> Delivery:
        """Return the message at the position, with the ack id that is valid now."""
        self._file.seek(place)
        delivery: Delivery = pickle.load(self._file)  # noqa: S301 - an unnamed file of this process alone
        return replace(delivery, ack_id=ack_id)

    def close(self) -> None:
        """Remove everything."""
        self._file.close()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Held:
    ack_id: str
    entry: DeadLetterEntry
    place: int | None
    """Position in the spool; None for a message that is not wanted."""


class Holding:
    """The held dead letters. Created by `hold_dead_letters`."""

    def __init__(
        self,
        subscription: Subscription,
        spool: Spool,
        limits: HoldLimits,
        wanted: Callable[[DeadLetterEntry], bool],
    ) -> None:
        self._subscription, self._spool, self._limits, self._wanted = subscription, spool, limits, wanted
        self._held: dict[str, _Held] = {}
        self._pull_messages = FIRST_PULL_MESSAGES

    @property
    def entries(self) -> tuple[DeadLetterEntry, ...]:
        """The dead letters held at this moment, one entry per id."""
        return fold(held.entry for held in self._held.values())

    @property
    def full_of(self) -> str:
        """The limit that was reached, as a sentence; empty if the subscription was read to its end."""
        if self._spool.bytes >= self._limits.bytes:
            return (
                f"{len(self._held)} messages take {self._spool.bytes / 2**20:.0f} MiB, which is the most held at once"
            )
        if len(self._held) >= self._limits.messages:
            return f"{len(self._held)} messages are the most held at once (--most)"
        return ""

    def letter(self, entry: DeadLetterEntry) -> Letter:
        """Read the whole letter from the spool. Raises `KeyError` if it was not wanted."""
        letters = [read(delivery) for delivery in self.messages(entry)]
        return next((letter for letter in letters if letter.origin is entry.origin), letters[0])

    def messages(self, entry: DeadLetterEntry) -> Iterator[Delivery]:
        """Read the physical messages of the entry from the spool, one at a time."""
        for message_id in entry.copies:
            held = self._held[message_id]
            if held.place is None:
                raise KeyError(message_id)
            yield self._spool.get(held.place, held.ack_id)

    async def gather(self, until: Callable[[], bool] = lambda: False, *, at_once: int = 1) -> None:
        """Pull until `EMPTY_ANSWERS` in a row, a limit, or the condition is true.

        An empty answer takes as long as the subscription waits for messages, so `at_once` pulls may be in flight. All
        are awaited: one that is cut off may have leased messages.
        """
        empty, pulls = 0, dict[asyncio.Task[Sequence[Delivery]], int]()
        try:
            while True:
                most = min(at_once, EMPTY_ANSWERS - empty)
                while len(pulls) < most and not until() and (count := self._count(sum(pulls.values()))):
                    pulls[asyncio.create_task(self._subscription.pull(count), name="dead-letter-pull")] = count
                if not pulls:
                    return
                done, _ = await asyncio.wait(pulls, return_when=asyncio.FIRST_COMPLETED)
                for pull in [each for each in pulls if each in done]:  # in the order of their requests
                    del pulls[pull]
                    deliveries = pull.result()
                    empty = 0 if deliveries else empty + 1
                    self._take_all(deliveries)
        finally:
            for pull in pulls:
                abandon(pull)

    def _count(self, requested: int) -> int:
        """Return the number of messages that one more pull may bring; 0 at a limit."""
        return 0 if self.full_of else min(self._pull_messages, self._limits.messages - len(self._held) - requested)

    def _take_all(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            self._take(delivery)
        if deliveries:
            largest = max(len(delivery.data) for delivery in deliveries)
            self._pull_messages = max(1, min(PULL_MESSAGES, PULL_BYTES // max(1, largest)))

    async def settle(self, entry: DeadLetterEntry) -> bool:
        """Acknowledge every copy of the entry. Return False if one could not be, and stays a dead letter."""
        settled = True
        for message_id in entry.copies:
            held = self._held.pop(message_id, None)
            if held is None:
                continue
            try:
                await self._subscription.ack(held.ack_id)
            except QueueServiceError as exc:
                settled = False
                log.warning("dead_letter.ack_failed", dead_letter_id=entry.dead_letter_id, reason=str(exc))
        return settled

    def _take(self, delivery: Delivery) -> None:
        # A message that is delivered again has outlived its lease: only its newest ack id is valid.
        known = self._held.get(delivery.message_id)
        entry = known.entry if known else entry_of(delivery)
        place = known.place if known else self._spool.put(delivery) if self._wanted(entry) else None
        self._held[delivery.message_id] = _Held(ack_id=delivery.ack_id, entry=entry, place=place)

    def ack_ids(self) -> list[str]:
        """Return the ack ids of everything that is held."""
        return [held.ack_id for held in self._held.values()]


async def keep_leased(
    subscription: Subscription, ack_ids: Callable[[], Collection[str]], lease_seconds: int, clock: Clock
) -> None:
    """Extend the leases now and at half time, in an endless loop; a failed extension is logged."""
    while True:
        try:
            if leased := list(ack_ids()):
                await subscription.extend(leased, lease_seconds)
        except (QueueServiceError, SubscriptionNotFound) as exc:
            log.warning("dead_letter.extension_failed", reason=str(exc))
        await clock.sleep(lease_seconds / 2)


async def release(subscription: Subscription, ack_ids: Iterable[str], most_seconds: float, clock: Clock) -> None:
    """Nack within a time limit; leases that are not nacked expire."""
    if not (leased := list(ack_ids)):
        return
    try:
        await bounded(subscription.extend(leased, 0), most_seconds, clock)
    except (QueueServiceError, SubscriptionNotFound, TimeoutError) as exc:
        log.warning("dead_letter.release_failed", reason=str(exc))


@asynccontextmanager
async def hold_dead_letters(
    subscription: Subscription,
    *,
    lease_seconds: int,
    limits: HoldLimits,
    clock: Clock,
    wanted: Callable[[DeadLetterEntry], bool] = lambda _: True,
) -> AsyncIterator[Holding]:
    """Pull dead letters within the limits and hold them inside the block.

    `lease_seconds` is the ack deadline; only `wanted` messages are spooled. Raises `QueueServiceError` or
    `SubscriptionNotFound` from pulling, and `OSError` if there is no disk space for the messages.
    """
    with closing(Spool(limits.folder)) as spool:
        holding = Holding(subscription, spool, limits, wanted)
        keeping = keep_leased(subscription, holding.ack_ids, lease_seconds, clock)
        keeping_task = asyncio.create_task(keeping, name="dead-letter-leases")
        try:
            await holding.gather(at_once=EMPTY_ANSWERS)
            yield holding
        finally:
            abandon(keeping_task)
            await release(subscription, holding.ack_ids(), RELEASE_SECONDS, clock)
