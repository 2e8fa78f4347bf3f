"""The iterator behind `worker.client.completions`: pulls events one by one and settles them as it goes."""

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from schemas.events import Event
from worker.client.connections import EventSubscription, event_in

if TYPE_CHECKING:  # importing Google's client costs 0.7 s, so it waits for the first call
    from google.pubsub_v1 import ReceivedMessage

PULL_SECONDS = 60.0
IDLE_SECONDS = 0.2
REMEMBERED = 10_000


class Inbox:
    """The iterator behind `completions`: at most one event in hand, unsettled.

    Events of another job than `job_id`, and events that `wants` refuses, are kept leased until `close`.
    """

    def __init__(
        self,
        subscription: EventSubscription,
        job_id: str | None = None,
        timeout_seconds: float | None = None,
        *,
        wants: Callable[[Event], bool] = lambda _event: True,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._subscription, self._job_id, self._wants = subscription, job_id, wants
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
        is_wanted = event is not None and self._job_id in (None, event.job.job_id) and self._wants(event)
        if event is not None and not is_wanted:
            self._others.append(received.ack_id)
            return None
        if event is None or event.event_id in self._handled:
            self._subscription.ack([received.ack_id])
            return None
        self._in_hand = (received.ack_id, event.event_id)
        return event
