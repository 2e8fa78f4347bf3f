"""Google's Pub/Sub clients, opened for a block, and subscriptions read through them.

`PUBSUB_EMULATOR_HOST` is honoured.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from schemas.events import Event, EventUnreadable, parse_event

if TYPE_CHECKING:  # importing Google's client costs 0.7 s, so it waits for the first call
    from google.cloud.pubsub_v1 import PublisherClient
    from google.pubsub_v1 import ReceivedMessage, SubscriberClient
    from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

_SETTLED_AT_ONCE = 1_000

log = logging.getLogger(__name__)


@contextmanager
def publisher_client(given: "PublisherClient | None") -> "Iterator[PublisherClient]":
    """Yield the given client, which stays open, or a new one that is closed after the block."""
    if given is not None:
        yield given
        return
    from google.cloud.pubsub_v1 import PublisherClient  # noqa: PLC0415 - see TYPE_CHECKING

    client = PublisherClient()
    try:
        yield client
    finally:
        client.stop()
        client.transport.close()


@contextmanager
def subscriber_client(given: "SubscriberClient | None") -> "Iterator[SubscriberClient]":
    """Yield the given client, which stays open, or a new one that is closed after the block."""
    if given is not None:
        yield given
        return
    from google import pubsub_v1  # noqa: PLC0415 - see TYPE_CHECKING

    emulator = os.environ.get("PUBSUB_EMULATOR_HOST")
    with pubsub_v1.SubscriberClient(transport=_emulator_transport(emulator) if emulator else None) as client:
        yield client


def _emulator_transport(host: str) -> "SubscriberGrpcTransport":
    """Open a channel to an emulator without the 4 MB limit of answers that the client's own channel has."""
    import grpc  # noqa: PLC0415 - see TYPE_CHECKING
    from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport  # noqa: PLC0415

    channel = grpc.insecure_channel(host, options=[("grpc.max_receive_message_length", -1)])
    return SubscriberGrpcTransport(host=host, channel=channel)


class EventSubscription:
    """A subscription of the completion topic; failures that pass are logged, and do not end the reading.

    `exclusive`: no other process reads it, so that events which are not awaited here can be acknowledged.
    """

    def __init__(self, subscriber: "SubscriberClient", path: str, *, exclusive: bool = False) -> None:
        self.path, self.exclusive = path, exclusive
        self._subscriber = subscriber
        self._last_pull_failed = False

    def pull(self, most: int, seconds: float) -> "Sequence[ReceivedMessage] | None":
        """Return the next messages, none after a failure that passes, or None when none came in time."""
        from google.api_core import exceptions  # noqa: PLC0415 - see TYPE_CHECKING

        request = {"subscription": self.path, "max_messages": most}
        had_failed, self._last_pull_failed = self._last_pull_failed, False
        try:
            return self._subscriber.pull(request=request, retry=None, timeout=seconds).received_messages
        except exceptions.DeadlineExceeded:
            return None
        except (exceptions.ServerError, exceptions.TooManyRequests, exceptions.Aborted) as exc:
            self._last_pull_failed = True
            if not had_failed:  # an outage is one line, however long it lasts
                log.warning("pull from %s failed, trying again: %s", self.path, exc)
            return ()

    def ack(self, ack_ids: Sequence[str]) -> None:
        """Settle messages for good."""
        self._settle(self._subscriber.acknowledge, ack_ids)

    def release(self, ack_ids: Sequence[str]) -> None:
        """Give messages back, to be delivered again at once."""
        self._settle(self._subscriber.modify_ack_deadline, ack_ids, ack_deadline_seconds=0)

    def close(self) -> None:
        """Close the client's connection, which ends a pull in flight."""
        self._subscriber.transport.close()  # type: ignore[no-untyped-call]

    def _settle(self, call: Callable[..., None], ack_ids: Sequence[str], **options: Any) -> None:
        from google.api_core import exceptions  # noqa: PLC0415 - see TYPE_CHECKING

        for start in range(0, len(ack_ids), _SETTLED_AT_ONCE):
            some = ack_ids[start : start + _SETTLED_AT_ONCE]
            try:
                call(request={"subscription": self.path, "ack_ids": some, **options})
            except (exceptions.GoogleAPIError, ValueError) as exc:  # an expired lease, no service, a closed channel
                log.warning("%d events of %s could not be settled and may come again: %s", len(some), self.path, exc)


def event_in(received: "ReceivedMessage") -> Event | None:
    """Return the message's event; None, with a warning in the log, for what is no event."""
    try:
        return parse_event(received.message.data)
    except EventUnreadable as exc:
        log.warning("dropped message %s, which is no event: %s", received.message.message_id, exc)
        return None
