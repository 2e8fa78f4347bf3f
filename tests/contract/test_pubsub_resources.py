"""Topics and subscriptions as resources, on every server."""

from datetime import timedelta

import grpc
import pytest
from google.api_core import exceptions
from google.iam.v1 import iam_policy_pb2
from google.iam.v1.iam_policy_pb2 import GetIamPolicyRequest, SetIamPolicyRequest
from google.iam.v1.policy_pb2 import Binding, Policy
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.pubsub_v1 import types

from tests.support.queues.pubsub_server import ONCE, Server

BAD_NAMES = ["1abc", "ab", "googlish", "a" * 256, "with space", "with/slash"]


async def test_a_created_topic_can_be_read_and_listed(server: Server) -> None:
    topic = await server.topic()

    found = await server.publisher.get_topic(types.GetTopicRequest(topic=topic), **ONCE)
    listed = await server.publisher.list_topics(types.ListTopicsRequest(project=f"projects/{server.project}"), **ONCE)

    assert found.name == topic
    assert [each.name async for each in listed] == [topic]


async def test_a_topic_is_created_once(server: Server) -> None:
    topic = await server.topic()

    with pytest.raises(exceptions.AlreadyExists):
        await server.publisher.create_topic(types.Topic(name=topic), **ONCE)


@pytest.mark.parametrize("short", BAD_NAMES)
async def test_a_topic_with_a_bad_name_is_refused(server: Server, short: str) -> None:
    with pytest.raises(exceptions.InvalidArgument):
        await server.publisher.create_topic(types.Topic(name=server.name("topics", short)), **ONCE)


async def test_a_topic_that_is_not_there_is_not_found(server: Server) -> None:
    missing = server.name("topics")

    with pytest.raises(exceptions.NotFound):
        await server.publisher.get_topic(types.GetTopicRequest(topic=missing), **ONCE)
    with pytest.raises(exceptions.NotFound):
        await server.publisher.delete_topic(types.DeleteTopicRequest(topic=missing), **ONCE)
    with pytest.raises(exceptions.NotFound):
        await server.publish(missing, b"x")
    with pytest.raises(exceptions.NotFound):
        await server.subscription(missing)


async def test_a_name_that_cannot_exist_is_invalid_rather_than_not_found(server: Server) -> None:
    with pytest.raises(exceptions.InvalidArgument):
        await server.publish(server.name("topics", "123"), b"x")
    with pytest.raises(exceptions.InvalidArgument):
        await server.pull_now(server.name("subscriptions", "123"))


async def test_a_policy_is_kept_and_a_stale_one_does_not_replace_it(embedded_server: Server) -> None:
    topic, subscription = await embedded_server.queue()

    for client, resource in ((embedded_server.publisher, topic), (embedded_server.subscriber, subscription)):
        read = await client.get_iam_policy(GetIamPolicyRequest(resource=resource), **ONCE)
        read.bindings.add(role="roles/pubsub.viewer", members=["domain:example.org"])
        await client.set_iam_policy(SetIamPolicyRequest(resource=resource, policy=read), **ONCE)
        kept = await client.get_iam_policy(GetIamPolicyRequest(resource=resource), **ONCE)

        assert kept.bindings == read.bindings
        with pytest.raises(exceptions.Aborted):
            await client.set_iam_policy(SetIamPolicyRequest(resource=resource, policy=read), **ONCE)


async def test_a_policy_goes_with_its_topic(embedded_server: Server) -> None:
    topic, client = await embedded_server.topic(), embedded_server.publisher
    policy = Policy(bindings=[Binding(role="roles/pubsub.viewer", members=["domain:example.org"])])
    await client.set_iam_policy(SetIamPolicyRequest(resource=topic, policy=policy), **ONCE)

    await client.delete_topic(types.DeleteTopicRequest(topic=topic), **ONCE)

    with pytest.raises(exceptions.NotFound):
        await client.get_iam_policy(GetIamPolicyRequest(resource=topic), **ONCE)
    await client.create_topic(types.Topic(name=topic), **ONCE)
    assert not (await client.get_iam_policy(GetIamPolicyRequest(resource=topic), **ONCE)).bindings


async def test_every_permission_is_granted(embedded_server: Server) -> None:
    topic = await embedded_server.topic()
    asked = iam_policy_pb2.TestIamPermissionsRequest(resource=topic, permissions=["pubsub.topics.publish"])

    granted = await embedded_server.publisher.test_iam_permissions(asked, **ONCE)

    assert granted.permissions == asked.permissions


async def test_a_deleted_topic_leaves_its_subscription_with_what_it_holds(server: Server) -> None:
    topic, subscription = await server.queue()
    await server.publish(topic, b"kept")

    await server.publisher.delete_topic(types.DeleteTopicRequest(topic=topic), **ONCE)

    assert (await get(server, subscription)).topic == "_deleted-topic_"
    assert [each.message.data for each in await server.receive(subscription)] == [b"kept"]


async def test_a_subscription_gets_the_documented_defaults(server: Server) -> None:
    topic, subscription = await server.queue()

    config = await get(server, subscription)

    assert config.topic == topic
    assert config.ack_deadline_seconds == 10
    assert config.message_retention_duration == timedelta(days=7)
    assert not config.enable_exactly_once_delivery


async def test_a_dead_letter_policy_gets_five_attempts_by_default(server: Server) -> None:
    topic = await server.topic()

    subscription = await server.subscription(topic, dead_letter_policy={"dead_letter_topic": topic})

    assert (await get(server, subscription)).dead_letter_policy.max_delivery_attempts == 5


@pytest.mark.parametrize("seconds", [601, -1])
async def test_an_ack_deadline_out_of_range_is_refused(server: Server, seconds: int) -> None:
    with pytest.raises(exceptions.InvalidArgument):
        await server.queue(ack_deadline_seconds=seconds)


@pytest.mark.emulator_fault("it takes ack deadlines below 10 s")
async def test_an_ack_deadline_below_ten_seconds_is_refused(server: Server) -> None:
    with pytest.raises(exceptions.InvalidArgument):
        await server.queue(ack_deadline_seconds=9)


@pytest.mark.parametrize("attempts", [4, 101])
async def test_dead_letter_attempts_out_of_range_are_refused(server: Server, attempts: int) -> None:
    topic = await server.topic()
    policy = types.DeadLetterPolicy(dead_letter_topic=topic, max_delivery_attempts=attempts)

    with pytest.raises(exceptions.GoogleAPICallError) as caught:
        await server.subscription(topic, dead_letter_policy=policy)

    assert caught.value.grpc_status_code in {grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.INVALID_ARGUMENT}


async def test_a_dead_letter_topic_must_exist(server: Server) -> None:
    policy = types.DeadLetterPolicy(dead_letter_topic=server.name("topics"))

    with pytest.raises(exceptions.NotFound):
        await server.queue(dead_letter_policy=policy)


@pytest.mark.parametrize(("low", "high"), [(601, 601), (60, 30), (1, 601)])
async def test_a_retry_policy_out_of_range_is_refused(server: Server, low: int, high: int) -> None:
    policy = types.RetryPolicy(minimum_backoff=Duration(seconds=low), maximum_backoff=Duration(seconds=high))

    with pytest.raises(exceptions.InvalidArgument):
        await server.queue(retry_policy=policy)


async def test_a_subscription_is_created_once(server: Server) -> None:
    topic, subscription = await server.queue()

    with pytest.raises(exceptions.AlreadyExists):
        await server.subscriber.create_subscription(types.Subscription(name=subscription, topic=topic), **ONCE)


async def test_subscriptions_are_listed_by_project_and_by_topic(server: Server) -> None:
    (topic, first), (_, other) = await server.queue(), await server.queue()

    in_project = await server.subscriber.list_subscriptions(
        types.ListSubscriptionsRequest(project=f"projects/{server.project}"), **ONCE
    )
    of_topic = await server.publisher.list_topic_subscriptions(types.ListTopicSubscriptionsRequest(topic=topic), **ONCE)

    assert sorted([each.name async for each in in_project]) == [first, other]
    assert [name async for name in of_topic] == [first]


async def test_a_subscription_update_changes_what_its_mask_names_alone(server: Server) -> None:
    topic, name = await server.queue(ack_deadline_seconds=20)
    wanted = types.Subscription(name=name, topic=topic, ack_deadline_seconds=60, retain_acked_messages=True)

    await update(server, wanted, "retain_acked_messages")

    config = await get(server, name)
    assert (config.ack_deadline_seconds, config.retain_acked_messages) == (20, True)


async def test_a_policy_that_the_mask_names_and_the_request_lacks_is_removed(server: Server) -> None:
    topic = await server.topic()
    name = await server.subscription(topic, dead_letter_policy={"dead_letter_topic": topic})

    await update(server, types.Subscription(name=name, topic=topic), "dead_letter_policy")

    assert not (await get(server, name)).dead_letter_policy.dead_letter_topic


@pytest.mark.parametrize("path", ["name", "topic", "filter", "enable_message_ordering", "nonsense"])
async def test_what_cannot_change_is_not_updated(server: Server, path: str) -> None:
    topic, name = await server.queue()

    with pytest.raises(exceptions.InvalidArgument):
        await update(server, types.Subscription(name=name, topic=topic), path)


async def test_an_update_must_keep_the_limits(server: Server) -> None:
    topic, name = await server.queue()

    with pytest.raises(exceptions.InvalidArgument):
        await update(
            server, types.Subscription(name=name, topic=topic, ack_deadline_seconds=601), "ack_deadline_seconds"
        )


async def test_a_deleted_subscription_is_not_found_by_any_call(server: Server) -> None:
    topic, name = await server.queue()
    await server.subscriber.delete_subscription(types.DeleteSubscriptionRequest(subscription=name), **ONCE)

    for call in (
        server.pull(name),
        server.ack(name, f"{name}:1"),
        server.lease(name, 10, f"{name}:1"),
        get(server, name),
        update(server, types.Subscription(name=name, topic=topic), "retry_policy"),
        server.subscriber.delete_subscription(types.DeleteSubscriptionRequest(subscription=name), **ONCE),
    ):
        with pytest.raises(exceptions.NotFound):
            await call


async def test_push_and_exports_are_unimplemented_on_the_embedded_server(embedded_server: Server) -> None:
    topic = await embedded_server.topic()
    push = types.PushConfig(push_endpoint="https://example.org")

    with pytest.raises(exceptions.MethodNotImplemented):
        await embedded_server.subscription(topic, push_config=push)
    with pytest.raises(exceptions.MethodNotImplemented):
        await embedded_server.subscription(topic, bigquery_config={"table": "p.d.t"})


async def get(server: Server, name: str) -> types.Subscription:
    return await server.subscriber.get_subscription(types.GetSubscriptionRequest(subscription=name), **ONCE)


async def update(server: Server, subscription: types.Subscription, *paths: str) -> types.Subscription:
    request = types.UpdateSubscriptionRequest(subscription=subscription, update_mask=FieldMask(paths=paths))
    return await server.subscriber.update_subscription(request, **ONCE)
