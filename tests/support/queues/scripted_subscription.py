"""A subscription scripted by a test, including its faults."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

from worker.ports import Delivery, SubscriptionFacts


def make_delivery(name: str = "m1", *, data: bytes = b"{}", ordering_key: str = "") -> Delivery:
    return Delivery(
        ack_id=f"ack-{name}",
        message_id=name,
        data=data,
        attributes={},
        ordering_key=ordering_key,
        publish_time=datetime(2026, 11, 22, 9, 59, tzinfo=UTC),
        delivery_attempt=1,
    )


class ScriptedSubscription:
    """Holds pulls until `deliver` or `fail_pull` answers them; remembers every request.

    The public attributes from `extend_error` on are the faults, set and unset at will.
    """

    def __init__(self) -> None:
        self.pulls: list[int] = []
        self.cancelled_pulls = 0
        self.extensions: list[tuple[tuple[str, ...], int]] = []
        self.nacks: list[tuple[str, ...]] = []
        self.acks: list[str] = []
        self.extend_error: Exception | None = None
        self.extend_hangs = False
        self.expired: frozenset[str] = frozenset()
        self.ack_error: Exception | None = None
        self.ack_hangs = False
        self.nack_error: Exception | None = None
        self.nack_hangs = False
        self._answers: asyncio.Queue[list[Delivery] | Exception] = asyncio.Queue()
        self._backlog: list[Delivery] = []

    def deliver(self, *deliveries: Delivery) -> None:
        """One answer to a pull; what exceeds the pull's number is answered to the next."""
        self._answers.put_nowait(list(deliveries))

    def fail_pull(self, error: Exception) -> None:
        self._answers.put_nowait(error)

    async def facts(self) -> SubscriptionFacts:
        return SubscriptionFacts(
            name="jobs", ack_deadline_seconds=10, exactly_once=False, dead_letter_topic=None, max_delivery_attempts=None
        )

    async def pull(self, max_messages: int) -> Sequence[Delivery]:
        self.pulls.append(max_messages)
        if not self._backlog:
            await self._refill()
        taken, self._backlog = self._backlog[:max_messages], self._backlog[max_messages:]
        return taken

    async def _refill(self) -> None:
        try:
            answer = await self._answers.get()
        except asyncio.CancelledError:
            self.cancelled_pulls += 1
            raise
        if isinstance(answer, Exception):
            raise answer
        self._backlog = answer

    async def extend(self, ack_ids: Sequence[str], seconds: int) -> frozenset[str]:
        return await (self._nack(ack_ids) if seconds == 0 else self._extend(ack_ids, seconds))

    async def _nack(self, ack_ids: Sequence[str]) -> frozenset[str]:
        self.nacks.append(tuple(ack_ids))
        await _fault(hangs=self.nack_hangs, error=self.nack_error)
        return frozenset()

    async def _extend(self, ack_ids: Sequence[str], seconds: int) -> frozenset[str]:
        self.extensions.append((tuple(ack_ids), seconds))
        await _fault(hangs=self.extend_hangs, error=self.extend_error)
        return self.expired & frozenset(ack_ids)

    async def ack(self, ack_id: str) -> None:
        self.acks.append(ack_id)
        await _fault(hangs=self.ack_hangs, error=self.ack_error)


async def _fault(*, hangs: bool, error: Exception | None) -> None:
    if hangs:
        await asyncio.Event().wait()
    if error is not None:
        raise error
