"""Topics and subscriptions by name, and the passing of time over all of them. One event loop, no locks, in memory."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count

from google.iam.v1 import policy_pb2
from google.protobuf import field_mask_pb2
from google.pubsub_v1 import types

from worker.embedded.pubsub import rules
from worker.embedded.pubsub.backlog import Backlog, Policy
from worker.embedded.pubsub.filters import Filter, compile_filter
from worker.embedded.pubsub.refusal import Refused, already_exists, invalid, not_found
from worker.embedded.pubsub.signals import Signal, first_of
from worker.embedded.pubsub.wire import as_timestamp, moment
from worker.ports import Clock

_DELETED_TOPIC = "_deleted-topic_"
_MUTABLE = frozenset(
    {
        "ack_deadline_seconds", "dead_letter_policy", "enable_exactly_once_delivery", "expiration_policy", "labels",
        "message_retention_duration", "push_config", "retain_acked_messages", "retry_policy",
    }
)  # fmt: skip


@dataclass(kw_only=True, eq=False)
class Attachment:
    """A subscription: its settings as the client sees them, and its messages."""

    config: types.Subscription
    matches: Filter
    backlog: Backlog
    changed: Signal = field(default_factory=Signal)
    """Messages may be ready, leases may have ended, or the subscription is gone."""
    deleted: bool = False

    def check_usable(self) -> None:
        """Raise `Refused` for a deleted subscription, even one deleted during a wait."""
        if self.deleted:
            raise not_found(self.config.name)


class Broker:
    """Every method raises `Refused` for what the service would refuse."""

    def __init__(self, clock: Clock) -> None:
        self.topics: dict[str, types.Topic] = {}
        self.subscriptions: dict[str, Attachment] = {}
        self.iam_policies: dict[str, policy_pb2.Policy] = {}
        self._clock = clock
        self._message_ids = count(1)
        self._rescheduled = Signal()
        self._wakes_at: float | None = None

    def now(self) -> float:
        """Monotonic seconds."""
        return self._clock.monotonic()

    def create_topic(self, topic: types.Topic) -> types.Topic:
        """Add it as given."""
        rules.check_topic(topic)
        if topic.name in self.topics:
            raise already_exists(topic.name)
        self.topics[topic.name] = topic
        return topic

    def topic(self, name: str) -> types.Topic:
        """Look it up."""
        rules.check_name("topics", name)
        if name not in self.topics:
            raise not_found(name)
        return self.topics[name]

    def delete_topic(self, name: str) -> None:
        """Remove it; its subscriptions stay, with what they hold."""
        self.topic(name)
        for attachment in self.attached(name):
            attachment.config.topic = _DELETED_TOPIC
        del self.topics[name]
        self.iam_policies.pop(name, None)

    def attached(self, topic: str) -> Iterator[Attachment]:
        """Return the topic's subscriptions."""
        return (each for each in self.subscriptions.values() if each.config.topic == topic)

    def create_subscription(self, config: types.Subscription) -> types.Subscription:
        """Add it, with the service's defaults filled in; it gets what is published from now on."""
        rules.check_subscription(config)
        if config.name in self.subscriptions:
            raise already_exists(config.name)
        self.topic(config.topic)
        self._check_dead_letter_topic(config)
        self.subscriptions[config.name] = Attachment(
            config=config,
            matches=compile_filter(config.filter),
            backlog=Backlog(config.name, Policy.of(config), lambda *args: self._dead_letter(config.name, *args)),
        )
        return config

    def subscription(self, name: str) -> Attachment:
        """Return the current state of the subscription."""
        rules.check_name("subscriptions", name)
        self.advance()
        if name not in self.subscriptions:
            raise not_found(name)
        return self.subscriptions[name]

    def usable(self, name: str) -> Attachment:
        """Look up a subscription to pull from or settle on."""
        attachment = self.subscription(name)
        attachment.check_usable()
        return attachment

    def update_subscription(self, config: types.Subscription, mask: field_mask_pb2.FieldMask) -> types.Subscription:
        """Replace the fields that the mask names; leases that are out keep their deadline."""
        attachment = self.subscription(config.name)
        updated = _merged(attachment.config, config, mask)
        rules.check_subscription(updated)
        self._check_dead_letter_topic(updated)
        attachment.config, attachment.backlog.policy = updated, Policy.of(updated)
        return updated

    def delete_subscription(self, name: str) -> None:
        """Remove it and end the pulls that wait on it."""
        attachment = self.subscription(name)
        del self.subscriptions[name]
        self.iam_policies.pop(name, None)
        attachment.deleted = True
        attachment.changed.notify()

    def publish(self, topic: str, messages: list[types.PubsubMessage]) -> list[str]:
        """Stamp the messages and queue them on every subscription whose filter they match."""
        self.topic(topic)
        attachments = list(self.attached(topic))
        for message in messages:
            message.message_id, message.publish_time = str(next(self._message_ids)), as_timestamp(self._clock.now())
            attributes = dict(message.attributes)
            for attachment in attachments:
                if attachment.matches(attributes):
                    attachment.backlog.add(message)
        for attachment in attachments:
            attachment.changed.notify()
        return [message.message_id for message in messages]

    def touched(self, attachment: Attachment) -> None:
        """Notify after a lease, settlement or extension: wakes waiting pulls and schedules new deadlines."""
        due = attachment.backlog.next_due()
        if due is not None and (self._wakes_at is None or due < self._wakes_at):
            self._rescheduled.notify()
        attachment.changed.notify()

    def advance(self) -> None:
        """Take back every expired lease and let out what was delayed, on all subscriptions."""
        now = self.now()
        for attachment in self.subscriptions.values():
            if attachment.backlog.sweep(now):
                attachment.changed.notify()

    async def keep_time(self) -> None:
        """Advance at every deadline, in an endless loop."""
        while True:
            self.advance()
            dues = (each.backlog.next_due() for each in self.subscriptions.values())
            self._wakes_at = min((due for due in dues if due is not None), default=None)
            await first_of(self._rescheduled.wait(), self._sleep_until(self._wakes_at))

    async def _sleep_until(self, due: float | None) -> None:
        if due is None:
            await asyncio.Event().wait()
        else:
            await self._clock.sleep(max(0.0, due - self.now()))

    def _check_dead_letter_topic(self, config: types.Subscription) -> None:
        if config.dead_letter_policy.dead_letter_topic:
            self.topic(config.dead_letter_policy.dead_letter_topic)

    def _dead_letter(self, subscription: str, message: types.PubsubMessage, attempts: int) -> bool:
        topic = self.subscriptions[subscription].config.dead_letter_policy.dead_letter_topic
        with suppress(Refused):
            self.publish(topic, [_forwarded(message, subscription, attempts)])
            return True
        return False


def _forwarded(message: types.PubsubMessage, subscription: str, attempts: int) -> types.PubsubMessage:
    _, project, _, name = subscription.split("/")
    source = {
        "DeliveryCount": str(attempts),
        "Subscription": name,
        "SubscriptionProject": project,
        "TopicPublishTime": moment(message.publish_time).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }
    added = {f"CloudPubSubDeadLetterSource{fact}": value for fact, value in source.items()}
    return types.PubsubMessage(
        data=message.data, attributes=dict(message.attributes) | added, ordering_key=message.ordering_key
    )


def _merged(old: types.Subscription, new: types.Subscription, mask: field_mask_pb2.FieldMask) -> types.Subscription:
    if not mask.paths:
        raise invalid("The update_mask must be set, and must contain a non-empty paths list")
    merged = types.Subscription(old)
    for path in mask.paths:
        if path not in _MUTABLE:
            raise invalid(f"Invalid update_mask: {path} is not a mutable field of Subscription")
        setattr(merged, path, getattr(new, path) if path in new else None)
    return merged
