"""Topics and subscriptions as the worker wants them, made on any server without credentials: embedded or emulator."""

from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc
from google.api_core.exceptions import AlreadyExists
from google.protobuf import duration_pb2
from google.pubsub_v1 import PublisherAsyncClient, SubscriberAsyncClient, types
from google.pubsub_v1.services.publisher.transports import PublisherGrpcAsyncIOTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcAsyncIOTransport

_ONCE: dict[str, Any] = {"retry": None, "timeout": 10.0}


@dataclass(frozen=True, kw_only=True, slots=True)
class SubscriptionPlan:
    """A pull subscription by short names; with a dead-letter topic, that topic and a subscription of the same name."""

    name: str
    topic: str
    ack_deadline_seconds: int = 60
    min_backoff_seconds: int | None = None
    max_backoff_seconds: int = 600
    dead_letter_topic: str | None = None
    max_delivery_attempts: int = 100
    exactly_once: bool = False
    ordered: bool = False
    filter: str = ""


async def provision(target: str, project_id: str, *plans: SubscriptionPlan) -> None:
    """Create what is missing on the server at `host:port`; what exists already is left as it is."""
    async with grpc.aio.insecure_channel(target) as channel:
        publisher = PublisherAsyncClient(transport=PublisherGrpcAsyncIOTransport(channel=channel))
        subscriber = SubscriberAsyncClient(transport=SubscriberGrpcAsyncIOTransport(channel=channel))
        for plan in plans:
            for topic in filter(None, (plan.topic, plan.dead_letter_topic)):
                await _ensure(publisher.create_topic(types.Topic(name=_topic(project_id, topic)), **_ONCE))
            for subscription in _subscriptions(project_id, plan):
                await _ensure(subscriber.create_subscription(subscription, **_ONCE))


async def _ensure(creation: Awaitable[object]) -> None:
    with suppress(AlreadyExists):
        await creation


def _subscriptions(project_id: str, plan: SubscriptionPlan) -> list[types.Subscription]:
    subscription = types.Subscription(
        name=_subscription(project_id, plan.name),
        topic=_topic(project_id, plan.topic),
        ack_deadline_seconds=plan.ack_deadline_seconds,
        enable_exactly_once_delivery=plan.exactly_once,
        enable_message_ordering=plan.ordered,
        filter=plan.filter,
    )
    if plan.min_backoff_seconds is not None:
        subscription.retry_policy = types.RetryPolicy(
            minimum_backoff=duration_pb2.Duration(seconds=plan.min_backoff_seconds),
            maximum_backoff=duration_pb2.Duration(seconds=plan.max_backoff_seconds),
        )
    if plan.dead_letter_topic is None:
        return [subscription]
    dead_letters = _topic(project_id, plan.dead_letter_topic)
    subscription.dead_letter_policy = types.DeadLetterPolicy(
        dead_letter_topic=dead_letters, max_delivery_attempts=plan.max_delivery_attempts
    )
    kept = types.Subscription(name=_subscription(project_id, plan.dead_letter_topic), topic=dead_letters)
    return [subscription, kept]


def _topic(project_id: str, name: str) -> str:
    return f"projects/{project_id}/topics/{name}"


def _subscription(project_id: str, name: str) -> str:
    return f"projects/{project_id}/subscriptions/{name}"
