"""The services as gRPC generic handlers over the client library's own message types."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import grpc
from google.iam.v1 import iam_policy_pb2, policy_pb2
from google.protobuf import empty_pb2
from google.protobuf.message import Message
from google.pubsub_v1 import types

from worker.embedded.pubsub.broker import Broker
from worker.embedded.pubsub.iam import IamPolicies
from worker.embedded.pubsub.publisher import Publisher
from worker.embedded.pubsub.refusal import Refused, invalid
from worker.embedded.pubsub.streaming import StreamingPull
from worker.embedded.pubsub.subscriber import Subscriber
from worker.ports import Clock

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_Method = tuple[Callable[[Any], Awaitable[Any]], Any, Any]


def handlers(broker: Broker, clock: Clock, pull_hold_seconds: float) -> Sequence[grpc.GenericRpcHandler]:
    """Everything that the server answers; any other RPC is UNIMPLEMENTED."""
    publisher, subscriber = Publisher(broker), Subscriber(broker, clock, pull_hold_seconds)
    return (
        _service("google.pubsub.v1.Publisher", _publisher_methods(publisher), {}),
        _service(
            "google.pubsub.v1.Subscriber", _subscriber_methods(subscriber), {"StreamingPull": _streaming_pull(broker)}
        ),
        _service("google.iam.v1.IAMPolicy", _iam_methods(IamPolicies(broker)), {}),
    )


def _publisher_methods(service: Publisher) -> dict[str, _Method]:
    return {
        "CreateTopic": (service.create_topic, types.Topic, types.Topic),
        "GetTopic": (service.get_topic, types.GetTopicRequest, types.Topic),
        "ListTopics": (service.list_topics, types.ListTopicsRequest, types.ListTopicsResponse),
        "ListTopicSubscriptions": (
            service.list_topic_subscriptions,
            types.ListTopicSubscriptionsRequest,
            types.ListTopicSubscriptionsResponse,
        ),
        "DeleteTopic": (service.delete_topic, types.DeleteTopicRequest, empty_pb2.Empty),
        "Publish": (service.publish, types.PublishRequest, types.PublishResponse),
    }


def _subscriber_methods(service: Subscriber) -> dict[str, _Method]:
    return {
        "CreateSubscription": (service.create_subscription, types.Subscription, types.Subscription),
        "GetSubscription": (service.get_subscription, types.GetSubscriptionRequest, types.Subscription),
        "UpdateSubscription": (service.update_subscription, types.UpdateSubscriptionRequest, types.Subscription),
        "ListSubscriptions": (
            service.list_subscriptions,
            types.ListSubscriptionsRequest,
            types.ListSubscriptionsResponse,
        ),
        "DeleteSubscription": (service.delete_subscription, types.DeleteSubscriptionRequest, empty_pb2.Empty),
        "Pull": (service.pull, types.PullRequest, types.PullResponse),
        "Acknowledge": (service.acknowledge, types.AcknowledgeRequest, empty_pb2.Empty),
        "ModifyAckDeadline": (service.modify_ack_deadline, types.ModifyAckDeadlineRequest, empty_pb2.Empty),
    }


def _iam_methods(service: IamPolicies) -> dict[str, _Method]:
    return {
        "GetIamPolicy": (service.get_iam_policy, iam_policy_pb2.GetIamPolicyRequest, policy_pb2.Policy),
        "SetIamPolicy": (service.set_iam_policy, iam_policy_pb2.SetIamPolicyRequest, policy_pb2.Policy),
        "TestIamPermissions": (
            service.test_iam_permissions,
            iam_policy_pb2.TestIamPermissionsRequest,
            iam_policy_pb2.TestIamPermissionsResponse,
        ),
    }


def _service(name: str, unary: dict[str, _Method], other: dict[str, _Handler]) -> grpc.GenericRpcHandler:
    rpcs = {rpc: _unary(*method) for rpc, method in unary.items()}
    return grpc.method_handlers_generic_handler(name, rpcs | other)


def _unary(method: Callable[[Any], Awaitable[Any]], request: Any, response: Any) -> _Handler:
    async def answer(message: Any, context: _Context) -> Any:
        try:
            return await method(message)
        except Refused as refused:
            await context.abort(refused.code, refused.message, refused.trailing_metadata)

    # The client's messages are proto-plus classes but for Empty and those of IAM, which are protobuf's own.
    deserialize = request.FromString if issubclass(request, Message) else request.deserialize
    serialize = response.SerializeToString if issubclass(response, Message) else response.serialize
    return grpc.unary_unary_rpc_method_handler(answer, deserialize, serialize)


def _streaming_pull(broker: Broker) -> _Handler:
    async def serve(requests: AsyncIterator[types.StreamingPullRequest], context: _Context) -> None:
        try:
            first = await anext(requests, None)
            if first is None:
                raise invalid("The stream's first request must name a subscription")
            await StreamingPull(broker, first, context).serve(requests)
        except Refused as refused:
            await context.abort(refused.code, refused.message, refused.trailing_metadata)

    return grpc.stream_stream_rpc_method_handler(
        serve, types.StreamingPullRequest.deserialize, types.StreamingPullResponse.serialize
    )
