"""google.pubsub.v1.Subscriber/StreamingPull."""

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

from google.pubsub_v1 import types

from worker.embedded.pubsub import rules
from worker.embedded.pubsub.backlog import Entry
from worker.embedded.pubsub.broker import Broker
from worker.embedded.pubsub.refusal import invalid
from worker.embedded.pubsub.signals import first_of
from worker.embedded.pubsub.subscriber import received

_UNLIMITED = 1 << 62
_MAX_MESSAGES_PER_RESPONSE = 1000


class Sink(Protocol):
    """Sink of a stream's responses, one at a time."""

    async def write(self, message: types.StreamingPullResponse) -> None:
        """Return when the transport took it."""
        ...


class StreamingPull:
    """One stream. A message it holds when it breaks comes back when its lease expires."""

    def __init__(self, broker: Broker, first: types.StreamingPullRequest, sink: Sink) -> None:
        self._broker, self._attachment = broker, broker.usable(first.subscription)
        self._sink, self._writing = sink, asyncio.Lock()
        rules.check_stream_deadline(first.stream_ack_deadline_seconds)
        self._lease_seconds = first.stream_ack_deadline_seconds
        self._max_messages = first.max_outstanding_messages if first.max_outstanding_messages > 0 else _UNLIMITED
        self._max_bytes = first.max_outstanding_bytes if first.max_outstanding_bytes > 0 else _UNLIMITED
        self._outstanding: dict[str, int] = {}

    async def serve(self, requests: AsyncIterator[types.StreamingPullRequest]) -> None:
        """Send messages and settle what the client settles, until the client closes its side."""
        reading = asyncio.create_task(self._read(requests))
        try:
            while not reading.done():
                self._attachment.check_usable()
                if entries := self._take():
                    await self._write(self._response(entries))
                else:
                    await first_of(self._attachment.changed.wait(), _ended(reading))
            await reading
        finally:
            reading.cancel()

    def _take(self) -> list[Entry]:
        backlog = self._attachment.backlog
        self._outstanding = {ack_id: size for ack_id, size in self._outstanding.items() if backlog.holds(ack_id)}
        room = min(self._max_messages - len(self._outstanding), _MAX_MESSAGES_PER_RESPONSE)
        room_bytes = self._max_bytes - sum(self._outstanding.values())
        if room_bytes <= 0:
            return []
        entries = backlog.take(self._broker.now(), room, self._lease_seconds, room_bytes)
        if entries:
            self._outstanding |= {str(entry.ack_id): entry.size_bytes for entry in entries}
            self._broker.touched(self._attachment)
        return entries

    async def _write(self, response: types.StreamingPullResponse) -> None:
        async with self._writing:
            await self._sink.write(response)

    async def _read(self, requests: AsyncIterator[types.StreamingPullRequest]) -> None:
        async for request in requests:
            response = self._settle(request)
            self._lease_seconds = request.stream_ack_deadline_seconds or self._lease_seconds
            if response is not None:
                await self._write(response)

    def _settle(self, request: types.StreamingPullRequest) -> types.StreamingPullResponse | None:
        """Apply the request's acks and new deadlines; confirm them on an exactly-once subscription."""
        if len(request.modify_deadline_ack_ids) != len(request.modify_deadline_seconds):
            raise invalid("modify_deadline_ack_ids and modify_deadline_seconds differ in length")
        if not request.ack_ids and not request.modify_deadline_ack_ids:
            return None
        backlog, now = self._attachment.backlog, self._broker.now()
        stale = set(backlog.settle(now, request.ack_ids))
        late: set[str] = set()
        for ack_id, seconds in zip(request.modify_deadline_ack_ids, request.modify_deadline_seconds, strict=True):
            late.update(backlog.extend(now, [ack_id], seconds))
        self._broker.touched(self._attachment)
        return _confirmation(request, stale, late) if backlog.policy.exactly_once else None

    def _response(self, entries: list[Entry]) -> types.StreamingPullResponse:
        policy = self._attachment.backlog.policy
        return types.StreamingPullResponse(
            received_messages=[received(entry, self._attachment) for entry in entries],
            subscription_properties=types.StreamingPullResponse.SubscriptionProperties(
                exactly_once_delivery_enabled=policy.exactly_once, message_ordering_enabled=policy.ordered
            ),
        )


def _confirmation(request: types.StreamingPullRequest, stale: set[str], late: set[str]) -> types.StreamingPullResponse:
    acked, moved = list(request.ack_ids), list(request.modify_deadline_ack_ids)
    return types.StreamingPullResponse(
        acknowledge_confirmation=types.StreamingPullResponse.AcknowledgeConfirmation(
            ack_ids=[ack_id for ack_id in acked if ack_id not in stale], invalid_ack_ids=sorted(stale)
        ),
        modify_ack_deadline_confirmation=types.StreamingPullResponse.ModifyAckDeadlineConfirmation(
            ack_ids=[ack_id for ack_id in moved if ack_id not in late], invalid_ack_ids=sorted(late)
        ),
    )


async def _ended(task: asyncio.Task[None]) -> None:
    await asyncio.wait([task])
