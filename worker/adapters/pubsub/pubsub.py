"""Google Cloud Pub/Sub as `worker.ports.Subscription` and `worker.ports.Topic`.

For the operator. What must exist: the pull subscription (ack deadline 30 to 60 s, so that a delivery lost with a dying
worker comes back soon; a retry policy; a dead-letter policy as the backstop; no filter, no push), the topics that are
published to, and a subscription on each of them, for a topic without one loses messages. Where JOBS_SUBSCRIPTION_URGENT
is set: a second subscription like the first, on the same topic, with the filter `attributes.priority = "urgent"`.
Exactly-once delivery may be on; nothing relies on it. The worker's account needs roles/pubsub.viewer on all of them,
roles/pubsub.subscriber on the subscriptions and roles/pubsub.publisher on the topics. For dead-letter forwarding
Pub/Sub's own account, service-PROJECT_NUMBER@gcp-sa-pubsub.iam.gserviceaccount.com, needs roles/pubsub.publisher on the
dead-letter topic and roles/pubsub.subscriber on the subscriptions.

Credentials are the application default ones. With an emulator's `host:port` there are none, and no TLS.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC
from functools import partial
from typing import Any, TypeVar

import grpc
import structlog
import tenacity
from google.api_core import exceptions as vendor
from google.iam.v1.iam_policy_pb2 import TestIamPermissionsRequest
from google.pubsub_v1 import PublisherAsyncClient, SubscriberAsyncClient, types
from google.pubsub_v1.services.publisher.transports import PublisherGrpcAsyncIOTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcAsyncIOTransport

from worker.adapters.retrying import retrying
from worker.errors import MessageRefused, QueueNotFound, QueueServiceError, SubscriptionNotFound
from worker.ports import Delivery, SubscriptionFacts

AnswerT = TypeVar("AnswerT")
TransportT = TypeVar("TransportT")

PUBLISH, CONSUME = "pubsub.topics.publish", "pubsub.subscriptions.consume"
"""The permissions that the worker needs on its topics and its subscription, beside viewing them."""

# A request may have 512 KiB, an ack id about 250 bytes.
_ACK_IDS_PER_REQUEST = 1000

# As on the clients' own channels: a 10 MB message does not fit gRPC's default limit of 4 MB.
_CHANNEL_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", 30_000),
]

# How an exactly-once subscription begins its word on a single ack id.
_TRY_AGAIN, _FOR_GOOD = "TRANSIENT_FAILURE", "PERMANENT_FAILURE"

_PUBLISH = "publish to"

_TRANSIENT = (
    vendor.Aborted,
    vendor.Cancelled,
    vendor.DeadlineExceeded,
    vendor.InternalServerError,
    vendor.ResourceExhausted,
    vendor.ServiceUnavailable,
    vendor.Unknown,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class CallTimeouts:
    """Time limits of calls to the service, in seconds."""

    # The service holds an empty pull for up to 100 s or more. Each pull that we cut off may strand a message.
    pull: float = 60.0
    # One try of any other call, and all tries together: an extension that starts at half of a 60 s lease ends in time.
    call: float = 8.0
    give_up: float = 25.0


log = structlog.get_logger(__name__)


class PubSub:
    """The clients of one project, opened by `open_pubsub`. Names are short, or full `projects/...` paths."""

    def __init__(
        self,
        project_id: str,
        subscriber: SubscriberAsyncClient,
        publisher: PublisherAsyncClient,
        timeouts: CallTimeouts,
    ) -> None:
        self._project_id, self._timeouts = project_id, timeouts
        self._subscriber, self._publisher = subscriber, publisher

    def subscription(self, name: str) -> "PubSubSubscription":
        """Return a subscription to pull from; its existence is checked by the first call."""
        return PubSubSubscription(self._subscriber, _path(self._project_id, "subscriptions", name), self._timeouts)

    def topic(self, name: str) -> "PubSubTopic":
        """Return a topic to publish to; its existence is checked by the first call."""
        return PubSubTopic(self._publisher, _path(self._project_id, "topics", name), self._timeouts)


@asynccontextmanager
async def open_pubsub(
    project_id: str, *, emulator_host: str | None = None, timeouts: CallTimeouts | None = None
) -> AsyncIterator[PubSub]:
    """Open the clients; leaving the context closes their connections and fails calls in flight.

    `emulator_host` is the value of PUBSUB_EMULATOR_HOST, which these clients do not read themselves. Without it, raises
    `google.auth.exceptions.DefaultCredentialsError` where there are no credentials.
    """
    async with (
        SubscriberAsyncClient(transport=_transport(SubscriberGrpcAsyncIOTransport, emulator_host)) as subscriber,
        PublisherAsyncClient(transport=_transport(PublisherGrpcAsyncIOTransport, emulator_host)) as publisher,
    ):
        yield PubSub(project_id, subscriber, publisher, timeouts or CallTimeouts())


class PubSubSubscription:
    """`worker.ports.Subscription` by unary calls, since the worker owns slots and leases."""

    def __init__(self, client: SubscriberAsyncClient, path: str, timeouts: CallTimeouts) -> None:
        self._client, self._path, self._timeouts = client, path, timeouts
        self._calls = _Calls(path, timeouts)

    async def facts(self) -> SubscriptionFacts:
        """Return the subscription's current properties."""
        request = types.GetSubscriptionRequest(subscription=self._path)
        config = await self._calls.retried("describe", partial(self._client.get_subscription, request))
        policy = config.dead_letter_policy
        return SubscriptionFacts(
            name=config.name,
            ack_deadline_seconds=config.ack_deadline_seconds,
            exactly_once=config.enable_exactly_once_delivery,
            dead_letter_topic=policy.dead_letter_topic or None,
            max_delivery_attempts=policy.max_delivery_attempts or None,
            topic=config.topic,
            filter=config.filter,
        )

    async def verify(self) -> None:
        """Raise `QueueServiceError` where the server says that messages may not be pulled; nothing is pulled."""
        if await self._calls.lacks(CONSUME, self._client.test_iam_permissions):
            raise QueueServiceError("pull from", self._path, f"{CONSUME} is not granted", refused=True)

    async def pull(self, max_messages: int) -> Sequence[Delivery]:
        """Wait up to `CallTimeouts.pull`; not retried, since a lost reply may have held messages."""
        request = types.PullRequest(subscription=self._path, max_messages=max_messages)
        try:
            response = await self._client.pull(request, retry=None, timeout=self._timeouts.pull)
        except vendor.DeadlineExceeded:
            return ()
        except vendor.GoogleAPICallError as exc:
            raise self._calls.translated("pull from", exc) from exc
        return tuple(_delivery(message) for message in response.received_messages)

    async def extend(self, ack_ids: Sequence[str], seconds: int) -> frozenset[str]:
        """Give each lease `seconds` from now; 0 is a nack. Return the ack ids known to be expired."""

        def modify(ids: Sequence[str], **options: Any) -> Awaitable[None]:
            request = types.ModifyAckDeadlineRequest(subscription=self._path, ack_ids=ids, ack_deadline_seconds=seconds)
            return self._client.modify_ack_deadline(request, **options)

        starts = range(0, len(ack_ids), _ACK_IDS_PER_REQUEST)
        batches = (ack_ids[start : start + _ACK_IDS_PER_REQUEST] for start in starts)
        return frozenset().union(*[await self._calls.settled("extend leases on", modify, batch) for batch in batches])

    async def ack(self, ack_id: str) -> None:
        """Settle for good. With exactly-once delivery a lost reply shows as an expired id, which is no error."""

        def acknowledge(ids: Sequence[str], **options: Any) -> Awaitable[None]:
            return self._client.acknowledge(types.AcknowledgeRequest(subscription=self._path, ack_ids=ids), **options)

        await self._calls.settled("ack on", acknowledge, [ack_id])


class PubSubTopic:
    """`worker.ports.Topic`, one message a request. `path` is its full name, as in errors."""

    def __init__(self, client: PublisherAsyncClient, path: str, timeouts: CallTimeouts) -> None:
        self._client, self.path = client, path
        self._calls = _Calls(path, timeouts)

    async def verify(self) -> None:
        """Raise `QueueNotFound` or `QueueServiceError` unless the topic is there and may be published to.

        Nothing is published or repeated: the permission is tested where the server can do that, and tried by a request
        without messages, which a server that would take messages refuses as invalid.
        """
        try:
            await self._client.get_topic(types.GetTopicRequest(topic=self.path), **self._calls.once)
            if await self._calls.lacks(PUBLISH, self._client.test_iam_permissions):
                raise QueueServiceError(_PUBLISH, self.path, f"{PUBLISH} is not granted", refused=True)
            await self._client.publish(types.PublishRequest(topic=self.path), **self._calls.once)
        except vendor.InvalidArgument:
            return
        except vendor.GoogleAPICallError as exc:
            raise self._calls.translated(_PUBLISH, exc) from exc

    async def publish(self, data: bytes, attributes: Mapping[str, str], ordering_key: str = "") -> str:
        """Return the message id once the service has confirmed it; retried, so a duplicate is possible."""
        message = types.PubsubMessage(data=data, attributes=dict(attributes), ordering_key=ordering_key)
        request = types.PublishRequest(topic=self.path, messages=[message])
        response = await self._calls.retried(_PUBLISH, partial(self._client.publish, request))
        return response.message_ids[0]


class _Calls:
    """Owner of deadlines, retries and error translation of the calls on one resource."""

    def __init__(self, resource: str, timeouts: CallTimeouts) -> None:
        self._resource, self._timeouts = resource, timeouts

    @property
    def once(self) -> dict[str, Any]:
        """The options of a call that is not repeated."""
        return {"retry": None, "timeout": self._timeouts.call}

    async def lacks(self, permission: str, test: Callable[..., Awaitable[Any]]) -> bool:
        """Return True where the server says that the permission is missing; development servers do not say."""
        request = TestIamPermissionsRequest(resource=self._resource, permissions=[permission])
        try:
            answer = await test(request, **self.once)
        except vendor.GoogleAPICallError as exc:
            log.debug("pubsub.permission_untested", resource=self._resource, permission=permission, reason=str(exc))
            return False
        return permission not in answer.permissions

    async def retried(self, operation: str, call: Callable[..., Awaitable[AnswerT]]) -> AnswerT:
        """Call until that works, fails for good or `CallTimeouts.give_up` is over; the client's own retry is off."""
        attempts = retrying(
            "pubsub",
            operation,
            self._resource,
            is_transient=lambda error: isinstance(error, (*_TRANSIENT, _SomeIdsFailed)),
            stop=tenacity.stop_before_delay(self._timeouts.give_up),
            first_wait_seconds=0.1,
            longest_wait_seconds=2.0,
        )
        try:
            return await attempts(call, **self.once)
        except (vendor.GoogleAPICallError, _SomeIdsFailed) as exc:
            raise self.translated(operation, exc) from exc

    async def settled(
        self, operation: str, send: Callable[..., Awaitable[None]], ack_ids: Sequence[str]
    ) -> frozenset[str]:
        """Send the ids until each is answered for; return those that an exactly-once answer calls expired."""
        open_ids, expired = list(ack_ids), set[str]()

        async def attempt(**options: Any) -> None:
            try:
                await send(open_ids, **options)
            except vendor.GoogleAPICallError as exc:
                verdicts = _verdicts(exc)
                if not verdicts:
                    raise
                open_ids[:] = [ack_id for ack_id, verdict in verdicts.items() if verdict.startswith(_TRY_AGAIN)]
                expired.update(verdicts.keys() - set(open_ids))
                if open_ids:
                    raise _SomeIdsFailed(", ".join(sorted(set(verdicts.values())))) from exc

        await self.retried(operation, attempt)
        return frozenset(expired)

    def translated(
        self, operation: str, exc: Exception
    ) -> MessageRefused | QueueNotFound | QueueServiceError | SubscriptionNotFound:
        """Return the worker's error for the client library's."""
        if isinstance(exc, vendor.InvalidArgument) and operation == _PUBLISH:
            return MessageRefused(self._resource, str(exc.message))
        if isinstance(exc, vendor.NotFound):
            kind = SubscriptionNotFound if "/subscriptions/" in self._resource else QueueNotFound
            return kind(self._resource)
        refused = isinstance(exc, vendor.Forbidden | vendor.Unauthorized)
        return QueueServiceError(operation, self._resource, str(exc), refused=refused)


class _SomeIdsFailed(Exception):
    """The service could not handle some ack ids for now."""


def _verdicts(exc: vendor.GoogleAPICallError) -> dict[str, str]:
    """Return the error's reasons by ack id; an id without a reason was handled."""
    facts: Mapping[str, str] = exc.metadata or {}
    return {key: value for key, value in facts.items() if value.startswith((_TRY_AGAIN, _FOR_GOOD))}


def _transport(kind: Callable[..., TransportT], emulator_host: str | None) -> TransportT | str:
    """Return a transport to an emulator, or the name of the client's own."""
    if not emulator_host:
        return "grpc_asyncio"
    return kind(channel=grpc.aio.insecure_channel(emulator_host, options=_CHANNEL_OPTIONS))


def _path(project_id: str, collection: str, name: str) -> str:
    return name if "/" in name else f"projects/{project_id}/{collection}/{name}"


def _delivery(received: types.ReceivedMessage) -> Delivery:
    message = received.message
    return Delivery(
        ack_id=received.ack_id,
        message_id=message.message_id,
        data=message.data,
        attributes=dict(message.attributes),
        publish_time=types.PubsubMessage.pb(message).publish_time.ToDatetime(tzinfo=UTC),
        ordering_key=message.ordering_key,
        delivery_attempt=received.delivery_attempt or None,
    )
