"""The queue's twin: topics and subscriptions in memory, with leases, redelivery and dead letters.

It does leases, nacks with a fixed delay, exactly-once answers and dead-letter forwarding. Its only
filter is one attribute with one value. Messages with an ordering key are delivered like any other.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from worker.errors import MessageRefused, QueueNotFound, SubscriptionNotFound
from worker.ports import Clock, Delivery, SubscriptionFacts

MOST_ATTRIBUTES, MOST_BYTES = 100, 10_000_000


@dataclass(eq=False, kw_only=True, slots=True)
class _Held:
    """A message that is not settled; `delivery` is its latest or coming one."""

    delivery: Delivery
    failures: int = 0
    ready_at: float = 0.0
    lease_ends_at: float | None = None


@dataclass(eq=False, kw_only=True, slots=True)
class _Queue:
    topic: str
    facts: SubscriptionFacts
    nack_delay_seconds: float
    attribute: tuple[str, str] | None
    held: list[_Held] = field(default_factory=list)

    def leased(self, ack_id: str) -> _Held | None:
        return next((one for one in self.held if one.delivery.ack_id == ack_id and one.lease_ends_at is not None), None)

    def dues(self) -> Iterator[float]:
        return (one.ready_at if one.lease_ends_at is None else one.lease_ends_at for one in self.held)


class MemoryPubSub:
    """A broker for tests and dry runs; create topics and subscriptions first. An empty pull waits `pull_seconds`."""

    def __init__(self, clock: Clock, pull_seconds: float = 60.0) -> None:
        self._clock, self._pull_seconds = clock, pull_seconds
        self._topics: set[str] = set()
        self._queues: dict[str, _Queue] = {}
        self._numbers = count(1)
        self._changed = asyncio.Event()

    def create_topic(self, name: str) -> None:
        """Make it known; without a subscription it loses what is published."""
        self._topics.add(name)

    def require_topic(self, name: str) -> None:
        """Raise `QueueNotFound` unless the topic is there."""
        if name not in self._topics:
            raise QueueNotFound(name)

    def create_subscription(
        self,
        name: str,
        *,
        topic: str,
        ack_deadline_seconds: int = 60,
        nack_delay_seconds: float = 0.0,
        exactly_once: bool = False,
        dead_letter_topic: str | None = None,
        max_delivery_attempts: int | None = None,
        attribute: tuple[str, str] | None = None,
    ) -> None:
        """Attach it to the topic; it gets what is published from now on, with `attribute` only what has that value."""
        facts = SubscriptionFacts(
            name=name,
            ack_deadline_seconds=ack_deadline_seconds,
            exactly_once=exactly_once,
            dead_letter_topic=dead_letter_topic,
            max_delivery_attempts=max_delivery_attempts,
            topic=topic,
            filter=f'attributes.{attribute[0]} = "{attribute[1]}"' if attribute else "",
        )
        self._queues[name] = _Queue(
            topic=topic, facts=facts, nack_delay_seconds=nack_delay_seconds, attribute=attribute
        )

    def delete_subscription(self, name: str) -> None:
        """Remove it with its messages; a pull that waits on it raises."""
        del self._queues[name]
        self._notify()

    def topic(self, name: str) -> "MemoryTopic":
        """Return a topic to publish to."""
        return MemoryTopic(self, name)

    def subscription(self, name: str) -> "MemorySubscription":
        """Return a subscription to pull from."""
        return MemorySubscription(self, name)

    def publish(self, topic: str, data: bytes, attributes: Mapping[str, str], ordering_key: str) -> str:
        """Queue the message on every subscription of the topic. Raises `QueueNotFound`."""
        self.require_topic(topic)
        message = Delivery(
            ack_id="",
            message_id=str(next(self._numbers)),
            data=data,
            attributes=dict(attributes),
            publish_time=self._clock.now(),
            ordering_key=ordering_key,
        )
        for queue in self._queues.values():
            if queue.topic == topic and (queue.attribute is None or queue.attribute in attributes.items()):
                queue.held.append(_Held(delivery=message))
        self._notify()
        return message.message_id

    def queue(self, name: str) -> _Queue:
        """Return the subscription's current state. Raises `SubscriptionNotFound`."""
        for queue in tuple(self._queues.values()):
            self._take_back_expired(queue)
        if name not in self._queues:
            raise SubscriptionNotFound(name)
        return self._queues[name]

    async def pull(self, name: str, max_messages: int) -> tuple[Delivery, ...]:
        """Lease what is ready, or wait for it."""
        give_up_at = self._clock.monotonic() + self._pull_seconds
        while not (deliveries := self._lease(self.queue(name), max_messages)):
            now = self._clock.monotonic()
            if now >= give_up_at:
                break
            dues = [due for queue in self._queues.values() for due in queue.dues() if due > now]
            await self._wait(min([*dues, give_up_at]) - now)
        return deliveries

    def move_lease(self, queue: _Queue, ack_id: str, seconds: int) -> bool:
        """End the lease that long from now, at once for 0; False when it is over already."""
        if (held := queue.leased(ack_id)) is None:
            return False
        if seconds:
            held.lease_ends_at = self._clock.monotonic() + seconds
        else:
            self._give_back(queue, held)
        return True

    def _lease(self, queue: _Queue, max_messages: int) -> tuple[Delivery, ...]:
        now = self._clock.monotonic()
        ready = [one for one in queue.held if one.lease_ends_at is None and one.ready_at <= now]
        for held in ready[:max_messages]:
            attempt = held.failures + 1 if queue.facts.dead_letter_topic else None
            held.delivery = replace(
                held.delivery, ack_id=f"{queue.facts.name}:{next(self._numbers)}", delivery_attempt=attempt
            )
            held.lease_ends_at = now + queue.facts.ack_deadline_seconds
        return tuple(held.delivery for held in ready[:max_messages])

    def _take_back_expired(self, queue: _Queue) -> None:
        now = self._clock.monotonic()
        for held in tuple(queue.held):
            if held.lease_ends_at is not None and held.lease_ends_at <= now:
                self._give_back(queue, held)

    def _give_back(self, queue: _Queue, held: _Held) -> None:
        """End the lease without an ack: the message comes again, or has had its attempts and is forwarded."""
        held.lease_ends_at, held.failures = None, held.failures + 1
        held.ready_at = self._clock.monotonic() + queue.nack_delay_seconds
        limit, dead_letters = queue.facts.max_delivery_attempts, queue.facts.dead_letter_topic
        if dead_letters in self._topics and limit is not None and held.failures >= limit:
            queue.held.remove(held)
            message = held.delivery
            attributes = {**message.attributes, **_source(queue.facts.name, held)}
            self.publish(dead_letters, message.data, attributes, message.ordering_key)
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _wait(self, seconds: float) -> None:
        waits = {asyncio.ensure_future(self._changed.wait()), asyncio.ensure_future(self._clock.sleep(seconds))}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)


class MemorySubscription:
    """`worker.ports.Subscription` on a `MemoryPubSub`."""

    def __init__(self, broker: MemoryPubSub, name: str) -> None:
        self._broker, self._name = broker, name

    async def facts(self) -> SubscriptionFacts:
        """Properties the subscription was created with."""
        return self._broker.queue(self._name).facts

    async def pull(self, max_messages: int) -> Sequence[Delivery]:
        """Lease up to that many messages, waiting for the first."""
        return await self._broker.pull(self._name, max_messages)

    async def extend(self, ack_ids: Sequence[str], seconds: int) -> frozenset[str]:
        """Move the leases' ends; 0 is a nack."""
        queue = self._broker.queue(self._name)
        expired = frozenset(ack_id for ack_id in ack_ids if not self._broker.move_lease(queue, ack_id, seconds))
        return expired if queue.facts.exactly_once else frozenset()

    async def ack(self, ack_id: str) -> None:
        """Acknowledge the message if the lease is valid."""
        queue = self._broker.queue(self._name)
        if held := queue.leased(ack_id):
            queue.held.remove(held)


class MemoryTopic:
    """`worker.ports.Topic` on a `MemoryPubSub`."""

    def __init__(self, broker: MemoryPubSub, name: str) -> None:
        self._broker, self._name = broker, name

    @property
    def path(self) -> str:
        """The topic's name, as its errors give it."""
        return self._name

    async def verify(self) -> None:
        """Raise `QueueNotFound` unless the topic is there."""
        self._broker.require_topic(self._name)

    async def publish(self, data: bytes, attributes: Mapping[str, str], ordering_key: str = "") -> str:
        """Queue it and return its id. Raises `MessageRefused` above 100 attributes or 10 MB."""
        size = len(data) + sum(len(name.encode()) + len(value.encode()) for name, value in attributes.items())
        if len(attributes) > MOST_ATTRIBUTES or size > MOST_BYTES:
            raise MessageRefused(self._name, f"{len(attributes)} attributes, {size} bytes")
        return self._broker.publish(self._name, data, attributes, ordering_key)


def _source(subscription: str, held: _Held) -> dict[str, str]:
    """Return the attributes that Pub/Sub adds to a forwarded message, except for the project."""
    return {
        "CloudPubSubDeadLetterSourceDeliveryCount": str(held.failures),
        "CloudPubSubDeadLetterSourceSubscription": subscription,
        "CloudPubSubDeadLetterSourceTopicPublishTime": held.delivery.publish_time.isoformat(),
    }
