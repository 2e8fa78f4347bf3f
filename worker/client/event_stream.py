"""The iterator behind `worker.client.completions`: pulls events one by one and settles them as it goes."""

import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from schemas.events import Event, EventUnreadable, parse_event

if TYPE_CHECKING:  # importing Google's client costs 0.7 s, so it waits for the first call
    from google.pubsub_v1 import ReceivedMessage, SubscriberClient

PULL_SECONDS = 60.0
IDLE_SECONDS = 0.2
REMEMBERED = 10_000
_SETTLED_AT_ONCE = 1_000

log = logging.getLogger(__name__)


class Inbox:
    """The iterator behind `completions`: at most one event in hand, unsettled.

    Events of another job than `job_id`, and events that `wants` refuses, are kept leased until `release`.
    """

    def __init__(
        self,
        subscriber: "SubscriberClient",
        path: str,
        job_id: str | None = None,
        timeout_seconds: float | None = None,
        *,
        wants: Callable[[Event], bool] = lambda _event: True,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._subscriber, self._path, self._job_id, self._wants = subscriber, path, job_id, wants
        self._monotonic, self._sleep = monotonic, sleep
        self._deadline = float("inf") if timeout_seconds is None else monotonic() + timeout_seconds
        self._in_hand: tuple[str, str] | None = None
        self._others: deque[str] = deque(maxlen=REMEMBERED)
        self._handled: OrderedDict[str, None] = OrderedDict()
        self._last_pull_failed = False

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
        self._ack(ack_id)

    def release(self) -> None:
        """Give back the event in hand and those of other jobs."""
        held = [*self._others, *([self._in_hand[0]] if self._in_hand else [])]
        self._others.clear()
        self._in_hand = None
        for start in range(0, len(held), _SETTLED_AT_ONCE):
            ack_ids = held[start : start + _SETTLED_AT_ONCE]
            self._settle(self._subscriber.modify_ack_deadline, ack_ids=ack_ids, ack_deadline_seconds=0)

    def _pull(self, seconds: float) -> "Sequence[ReceivedMessage]":
        from google.api_core import exceptions  # noqa: PLC0415 - see the module's imports

        # One at a time: an event that waited here for the one before it would use up its lease.
        request = {"subscription": self._path, "max_messages": 1}
        messages: Sequence[ReceivedMessage] = ()
        had_failed, self._last_pull_failed = self._last_pull_failed, False
        try:
            messages = self._subscriber.pull(request=request, retry=None, timeout=seconds).received_messages
        except exceptions.DeadlineExceeded:
            return ()
        except (exceptions.ServiceUnavailable, exceptions.InternalServerError, exceptions.Aborted) as exc:
            self._last_pull_failed = True
            if not had_failed:  # an outage is one line, however long it lasts
                log.warning("pull from %s failed, trying again: %s", self._path, exc)
        if not messages:
            self._sleep(IDLE_SECONDS)
        return messages

    def _take(self, received: "ReceivedMessage") -> Event | None:
        try:
            event = parse_event(received.message.data)
        except EventUnreadable as exc:
            log.warning("dropped message %s, which is no event: %s", received.message.message_id, exc)
            self._ack(received.ack_id)
            return None
        if self._job_id not in (None, event.job.job_id) or not self._wants(event):
            self._others.append(received.ack_id)
            return None
        if event.event_id in self._handled:
            self._ack(received.ack_id)
            return None
        self._in_hand = (received.ack_id, event.event_id)
        return event

    def _ack(self, ack_id: str) -> None:
        self._settle(self._subscriber.acknowledge, ack_ids=[ack_id])

    def _settle(self, call: Callable[..., None], **request: Any) -> None:
        from google.api_core import exceptions  # noqa: PLC0415 - see the module's imports

        try:
            call(request={"subscription": self._path, **request})
        except exceptions.GoogleAPIError as exc:  # an expired lease on an exactly-once subscription, or no service
            log.warning("an event of %s could not be settled and may come again: %s", self._path, exc)
