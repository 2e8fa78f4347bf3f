"""Limits of the service: names, sizes and defaults. Every function raises `Refused` or returns."""

import re
from datetime import timedelta

import grpc
from google.pubsub_v1 import types

from worker.embedded.pubsub.refusal import Refused, invalid, unimplemented
from worker.embedded.pubsub.wire import as_duration, span

MAX_REQUEST_BYTES = 10_000_000

_NAME = re.compile(r"projects/[^/]+/(topics|subscriptions)/(?!goog)[A-Za-z][A-Za-z0-9\-._~%+]{2,254}")
_MAX_ATTRIBUTES, _MAX_KEY_BYTES, _MAX_VALUE_BYTES, _MAX_ORDERING_KEY_BYTES = 100, 256, 1024, 1024
_MAX_MESSAGES = 1000
_DEFAULT_RETENTION_SECONDS = 7 * 24 * 3600
_RETENTION = (timedelta(minutes=10), timedelta(days=31))
_BACKOFF = (timedelta(0), timedelta(seconds=600))


def check_name(kind: str, name: str) -> None:
    """`kind` is the collection: topics or subscriptions."""
    match = _NAME.fullmatch(name)
    if match is None or match[1] != kind:
        raise invalid(f"Invalid [{kind}] name: (name={name})")


def check_topic(topic: types.Topic) -> None:
    """Check a topic to create."""
    check_name("topics", topic.name)
    if "ingestion_data_source_settings" in topic or "schema_settings" in topic:
        raise unimplemented("schemas and ingestion")
    if "message_retention_duration" in topic:
        _within("message_retention_duration", span(topic.message_retention_duration), _RETENTION)


def check_subscription(subscription: types.Subscription) -> None:
    """Check a subscription to create; fill in the service's defaults."""
    check_name("subscriptions", subscription.name)
    _refuse_exports(subscription)
    subscription.ack_deadline_seconds = subscription.ack_deadline_seconds or 10
    _check_seconds("ack_deadline_seconds", subscription.ack_deadline_seconds, 10)
    if "message_retention_duration" not in subscription:
        subscription.message_retention_duration = as_duration(_DEFAULT_RETENTION_SECONDS)
    _within("message_retention_duration", span(subscription.message_retention_duration), _RETENTION)
    if "dead_letter_policy" in subscription:
        _check_dead_letter_policy(subscription.dead_letter_policy)
    if "retry_policy" in subscription:
        _check_retry_policy(subscription.retry_policy)


def check_ack_ids(ack_ids: list[str], subscription: str) -> None:
    """Check that this subscription can have issued the ids; their leases may have ended."""
    if not ack_ids:
        raise invalid("No ack ids specified.")
    for ack_id in ack_ids:
        if not ack_id.startswith(f"{subscription}:"):
            raise invalid(f"Invalid ack id (ack_id={ack_id})")


def check_lease_seconds(seconds: int) -> None:
    """Check a new ack deadline of single messages; 0 is a nack."""
    _check_seconds("ack_deadline_seconds", seconds, 0)


def check_stream_deadline(seconds: int) -> None:
    """Check the ack deadline of a streaming pull."""
    _check_seconds("stream_ack_deadline_seconds", seconds, 10)


def check_publish(request: types.PublishRequest) -> None:
    """Check the size of the request and every message in it."""
    if not request.messages:
        raise invalid("No messages to publish")
    if len(request.messages) > _MAX_MESSAGES:
        raise _too_large("message_count", len(request.messages), _MAX_MESSAGES)
    _check_size("request_size", types.PublishRequest.pb(request).ByteSize(), MAX_REQUEST_BYTES)
    for message in request.messages:
        _check_message(message)


def _check_message(message: types.PubsubMessage) -> None:
    if not message.data and not message.attributes:
        raise invalid("Some messages are empty")
    _check_size("attributes", len(message.attributes), _MAX_ATTRIBUTES)
    _check_size("ordering_key", len(message.ordering_key.encode()), _MAX_ORDERING_KEY_BYTES)
    for key, value in message.attributes.items():
        # `googclient_` is what Google's own clients put before the names of their trace attributes.
        if not key or (key.startswith("goog") and not key.startswith("googclient_")):
            raise invalid(f"Invalid attribute key: {key!r}")
        _check_size("attribute key", len(key.encode()), _MAX_KEY_BYTES)
        _check_size("attribute value", len(value.encode()), _MAX_VALUE_BYTES)


def _refuse_exports(subscription: types.Subscription) -> None:
    if subscription.push_config.push_endpoint:
        raise unimplemented("push subscriptions")
    for export in ("bigquery_config", "cloud_storage_config", "bigtable_config", "message_transforms"):
        if export in subscription:
            raise unimplemented(export)


def _check_dead_letter_policy(policy: types.DeadLetterPolicy) -> None:
    check_name("topics", policy.dead_letter_topic)
    policy.max_delivery_attempts = policy.max_delivery_attempts or 5
    if not 5 <= policy.max_delivery_attempts <= 100:  # noqa: PLR2004 - the service's documented bounds
        raise Refused(
            grpc.StatusCode.OUT_OF_RANGE,
            f"The value for max_delivery_attempts is out of range. You passed {policy.max_delivery_attempts} in the "
            "request, but it must be between 5 and 100.",
        )


def _check_retry_policy(policy: types.RetryPolicy) -> None:
    if "minimum_backoff" not in policy:
        policy.minimum_backoff = as_duration(10)
    if "maximum_backoff" not in policy:
        policy.maximum_backoff = as_duration(600)
    minimum = span(policy.minimum_backoff)
    _within("minimum_backoff", minimum, _BACKOFF)
    _within("maximum_backoff", span(policy.maximum_backoff), (minimum, _BACKOFF[1]))


def _check_seconds(field: str, seconds: int, lowest: int) -> None:
    _within(field, timedelta(seconds=seconds), (timedelta(seconds=lowest), timedelta(seconds=600)))


def _within(field: str, value: timedelta, bounds: tuple[timedelta, timedelta]) -> None:
    low, high = (bound.total_seconds() for bound in bounds)
    if not low <= value.total_seconds() <= high:
        raise invalid(f"The value for {field} is out of range: {value.total_seconds():g} s is not in {low:g}..{high:g}")


def _check_size(what: str, size: int, limit: int) -> None:
    if size > limit:
        raise _too_large(what, size, limit)


def _too_large(what: str, size: int, limit: int) -> Refused:
    return invalid(
        f"The value for {what} is too large. You passed {size} in the request, but the maximum value is {limit}."
    )
