"""Topics and subscriptions as resources, on every server."""

from datetime import timedelta

import grpc
import pytest
from google.api_core import exceptions
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


async def test_long_listings_come_in_pages(server: Server) -> None:
    topics = [await server.topic() for _ in range(5)]
    request = types.ListTopicsRequest(project=f"projects/{server.project}", page_size=2)

    pages = [page async for page in (await server.publisher.list_topics(request, **ONCE)).pages]

    assert [len(page.topics) for page in pages] == [2, 2, 1]
    assert sorted(topic.name for page in pages for topic in page.topics) == topics


async def test_a_topic_is_created_once(server: Server) -> None:
    topic = await server.topic()

    with pytest.raises(exceptions.AlreadyExists):
        await server.publisher.create_topic(types.Topic(name=topic), **ONCE)


@pytest.mark.parametrize("short", BAD_NAMES)
async def test_a_topic_with_a_bad_name_is_refused(server: Server, short: str) -> None:
    with pytest.raises(exceptions.InvalidArgument):
        await server.publisher.create_topic(types.Topic(name=server.name("topics", short)), **ONCE)


@pytest.mark.emulator_fault("it knows no labels on topics")
async def test_a_topic_update_changes_what_its_mask_names(server: Server) -> None:
    topic = types.Topic(name=await server.topic(), labels={"team": "a"})

    request = types.UpdateTopicRequest(topic=topic, update_mask=FieldMask(paths=["labels"]))
    updated = await server.publisher.update_topic(request, **ONCE)

    assert dict(updated.labels) == {"team": "a"}


async def test_a_topic_update_without_a_mask_is_refused(server: Server) -> None:
    topic = types.Topic(name=await server.topic(), labels={"team": "a"})

    with pytest.raises(exceptions.InvalidArgument):
        await server.publisher.update_topic(types.UpdateTopicRequest(topic=topic), **ONCE)


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
        server.subscriber.seek(types.SeekRequest(subscription=name), **ONCE),
        server.subscriber.delete_subscription(types.DeleteSubscriptionRequest(subscription=name), **ONCE),
    ):
        with pytest.raises(exceptions.NotFound):
            await call


@pytest.mark.emulator_fault("it does not do detach")
async def test_a_detached_subscription_drops_its_messages_and_refuses_pulls(server: Server) -> None:
    topic, subscription = await server.queue()
    await server.publish(topic, b"dropped")

    await server.publisher.detach_subscription(types.DetachSubscriptionRequest(subscription=subscription), **ONCE)

    assert (await get(server, subscription)).detached
    with pytest.raises(exceptions.FailedPrecondition):
        await server.pull(subscription)


async def test_push_and_exports_are_unimplemented_on_the_embedded_server(embedded_server: Server) -> None:
    topic, subscription = await embedded_server.queue()
    push = types.PushConfig(push_endpoint="https://example.org")

    with pytest.raises(exceptions.MethodNotImplemented):
        await embedded_server.subscription(topic, push_config=push)
    with pytest.raises(exceptions.MethodNotImplemented):
        await embedded_server.subscription(topic, bigquery_config={"table": "p.d.t"})
    with pytest.raises(exceptions.MethodNotImplemented):
        await embedded_server.subscriber.modify_push_config(
            types.ModifyPushConfigRequest(subscription=subscription, push_config=push), **ONCE
        )


async def get(server: Server, name: str) -> types.Subscription:
    return await server.subscriber.get_subscription(types.GetSubscriptionRequest(subscription=name), **ONCE)


async def update(server: Server, subscription: types.Subscription, *paths: str) -> types.Subscription:
    request = types.UpdateSubscriptionRequest(subscription=subscription, update_mask=FieldMask(paths=paths))
    return await server.subscriber.update_subscription(request, **ONCE)
