"""Google's Pub/Sub clients, opened for a block, and the reading of events through them.

`PUBSUB_EMULATOR_HOST` is honoured.
"""

import logging
import os
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from schemas.events import Event, EventUnreadable, parse_event

if TYPE_CHECKING:  # importing Google's client costs 0.7 s, so it waits for the first call
    from google.cloud.pubsub_v1 import PublisherClient
    from google.pubsub_v1 import ReceivedMessage, SubscriberClient
    from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

PULL_SECONDS = 60.0
IDLE_SECONDS = 0.2
REMEMBERED = 10_000
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
        self._last_pull_failed = self._is_stopped = False

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
        except (exceptions.Cancelled, ValueError):  # the channel was closed, during the call or before it
            if self._is_stopped:
                return None
            raise

    def ack(self, ack_ids: Sequence[str]) -> None:
        """Settle messages for good."""
        self._settle(self._subscriber.acknowledge, ack_ids)

    def release(self, ack_ids: Sequence[str]) -> None:
        """Give messages back, to be delivered again at once."""
        self._settle(self._subscriber.modify_ack_deadline, ack_ids, ack_deadline_seconds=0)

    def stop(self) -> None:
        """Expect that the connection may close, for example during the pull of another thread."""
        self._is_stopped = True

    def close(self) -> None:
        """Stop, and close the client's connection, which ends a pull in flight."""
        self.stop()
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


class Inbox:
    """The iterator behind `completions`: at most one event in hand, unsettled.

    Events that `wants` refuses are kept leased until `close`.
    """

    def __init__(
        self,
        subscription: EventSubscription,
        timeout_seconds: float | None = None,
        *,
        wants: Callable[[Event], bool] = lambda _event: True,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._subscription, self._wants = subscription, wants
        self._monotonic, self._sleep = monotonic, sleep
        self._deadline = float("inf") if timeout_seconds is None else monotonic() + timeout_seconds
        self._in_hand: tuple[str, str] | None = None
        self._others: deque[str] = deque(maxlen=REMEMBERED)
        self._handled: OrderedDict[str, None] = OrderedDict()

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        self.ack()
        while (remaining := self._deadline - self._monotonic()) > 0:
            for message in self._pull(min(remaining, PULL_SECONDS)):
                event = self._take(message)
                if event is not None:
                    return event
        raise StopIteration

    def ack(self) -> None:
        """Settle the event in hand, if any, for good."""
        if self._in_hand is None:
            return
        ack_id, event_id = self._in_hand
        self._in_hand = None
        self._handled[event_id] = None
        if len(self._handled) > REMEMBERED:
            self._handled.popitem(last=False)
        self._subscription.ack([ack_id])

    def close(self) -> None:
        """Give back the event in hand and those of other jobs, and end the iteration."""
        self._subscription.release([*self._others, *([self._in_hand[0]] if self._in_hand else [])])
        self._others.clear()
        self._in_hand = None
        self._deadline = float("-inf")
        self._subscription.stop()

    def _pull(self, seconds: float) -> "Sequence[ReceivedMessage]":
        # One at a time: an event that waited here for the one before it would use up its lease.
        messages = self._subscription.pull(1, seconds)
        if messages is None:
            return ()
        if not messages:
            self._sleep(IDLE_SECONDS)
        return messages

    def _take(self, received: "ReceivedMessage") -> Event | None:
        event = event_in(received)
        if event is not None and not self._wants(event):
            self._others.append(received.ack_id)
            return None
        if event is None or event.event_id in self._handled:
            self._subscription.ack([received.ack_id])
            return None
        self._in_hand = (received.ack_id, event.event_id)
        return event
