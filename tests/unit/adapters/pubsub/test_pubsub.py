"""The adapter against a service that fails; that it works is the contract suite's to show."""

from collections.abc import AsyncIterator

import grpc
import pytest
import structlog
from google.iam.v1 import iam_policy_pb2
from google.pubsub_v1 import types

from tests.support.queues.scripted_server import ScriptedPubSub, scripted_pubsub
from worker.adapters.pubsub.pubsub import CallTimeouts, PubSub, open_pubsub
from worker.embedded.pubsub.refusal import Refused
from worker.errors import QueueNotFound, QueueServiceError

UNAVAILABLE = Refused(grpc.StatusCode.UNAVAILABLE, "try again")
FORBIDDEN = Refused(grpc.StatusCode.PERMISSION_DENIED, "no")
MISSING = Refused(grpc.StatusCode.NOT_FOUND, "gone")
PUBLISHED = types.PublishResponse.serialize(types.PublishResponse(message_ids=["1"]))
UNIMPLEMENTED = Refused(grpc.StatusCode.UNIMPLEMENTED, "not here")
DONE = b""


def refused_ids(**verdicts: str) -> Refused:
    return Refused(grpc.StatusCode.INVALID_ARGUMENT, "some ids", verdicts)


@pytest.fixture
async def service() -> AsyncIterator[ScriptedPubSub]:
    async with scripted_pubsub() as script:
        yield script


@pytest.fixture
async def pubsub(service: ScriptedPubSub) -> AsyncIterator[PubSub]:
    timeouts = CallTimeouts(pull=0.2, call=0.5, give_up=2.0)
    async with open_pubsub("p", emulator_host=service.target, timeouts=timeouts) as opened:
        yield opened


async def test_a_publish_is_tried_again_after_a_transient_error(service: ScriptedPubSub, pubsub: PubSub) -> None:
    service.answer("Publish", UNAVAILABLE, UNAVAILABLE, PUBLISHED)

    with structlog.testing.capture_logs() as events:
        assert await pubsub.topic("t").publish(b"x", {}) == "1"

    assert [(one["event"], one["resource"], one["attempt"]) for one in events] == [
        ("pubsub.retry", "projects/p/topics/t", 1),
        ("pubsub.retry", "projects/p/topics/t", 2),
    ]


async def test_a_publish_without_a_reply_is_tried_again_after_its_deadline(
    service: ScriptedPubSub, pubsub: PubSub
) -> None:
    service.answer("Publish", None, PUBLISHED)

    assert await pubsub.topic("t").publish(b"x", {}) == "1"
    assert service.count("Publish") == 2


async def test_a_service_that_stays_away_is_given_up(service: ScriptedPubSub, pubsub: PubSub) -> None:
    service.answer("Publish", UNAVAILABLE)

    with pytest.raises(QueueServiceError, match=r"publish to projects/p/topics/t: .*try again"):
        await pubsub.topic("t").publish(b"x", {})

    assert service.count("Publish") > 2


async def test_an_error_for_good_is_not_tried_again(service: ScriptedPubSub, pubsub: PubSub) -> None:
    service.answer("Publish", FORBIDDEN)

    with pytest.raises(QueueServiceError):
        await pubsub.topic("t").publish(b"x", {})

    assert service.count("Publish") == 1


async def test_a_missing_topic_is_named(service: ScriptedPubSub, pubsub: PubSub) -> None:
    service.answer("GetTopic", MISSING)

    with pytest.raises(QueueNotFound) as caught:
        await pubsub.topic("projects/other/topics/t").verify()

    assert caught.value.resource == "projects/other/topics/t"


async def test_a_topic_that_takes_messages_is_verified_without_publishing_any(
    service: ScriptedPubSub, pubsub: PubSub
) -> None:
    service.answer("GetTopic", types.Topic.serialize(types.Topic(name="t")))
    service.answer("TestIamPermissions", UNIMPLEMENTED)
    service.answer("Publish", Refused(grpc.StatusCode.INVALID_ARGUMENT, "no messages"))

    await pubsub.topic("t").verify()

    (request,) = [types.PublishRequest.deserialize(data) for method, data in service.calls if method == "Publish"]
    assert list(request.messages) == []


@pytest.mark.parametrize("refusal", [FORBIDDEN, Refused(grpc.StatusCode.UNAUTHENTICATED, "no token")])
async def test_a_topic_that_refuses_publishers_fails_its_verification(
    service: ScriptedPubSub, pubsub: PubSub, refusal: Refused
) -> None:
    service.answer("GetTopic", types.Topic.serialize(types.Topic(name="t")))
    service.answer("TestIamPermissions", UNIMPLEMENTED)
    service.answer("Publish", refusal)

    with pytest.raises(QueueServiceError) as caught:
        await pubsub.topic("t").verify()

    assert caught.value.refused


async def test_a_topic_whose_permission_is_not_granted_is_not_tried(service: ScriptedPubSub, pubsub: PubSub) -> None:
    service.answer("GetTopic", types.Topic.serialize(types.Topic(name="t")))
    service.answer("TestIamPermissions", iam_policy_pb2.TestIamPermissionsResponse().SerializeToString())

    with pytest.raises(QueueServiceError, match=r"pubsub.topics.publish is not granted") as caught:
        await pubsub.topic("t").verify()

    assert (caught.value.refused, service.count("Publish")) == (True, 0)


async def test_a_subscription_that_may_not_be_pulled_from_fails_its_verification(
    service: ScriptedPubSub, pubsub: PubSub
) -> None:
    service.answer("TestIamPermissions", iam_policy_pb2.TestIamPermissionsResponse().SerializeToString(), UNIMPLEMENTED)

    with pytest.raises(QueueServiceError, match=r"pubsub.subscriptions.consume is not granted"):
        await pubsub.subscription("s").verify()
    await pubsub.subscription("s").verify()


@pytest.mark.parametrize(
    ("answer", "refused"),
    [(UNAVAILABLE, False), (FORBIDDEN, True), (Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "429"), False)],
)
async def test_an_error_says_whether_the_service_refused_or_failed(
    service: ScriptedPubSub, pubsub: PubSub, answer: Refused, refused: bool
) -> None:
    service.answer("Pull", answer)

    with pytest.raises(QueueServiceError) as caught:
        await pubsub.subscription("s").pull(1)

    assert caught.value.refused is refused


async def test_a_pull_is_never_tried_again(service: ScriptedPubSub, pubsub: PubSub) -> None:
    service.answer("Pull", UNAVAILABLE)

    with pytest.raises(QueueServiceError):
        await pubsub.subscription("s").pull(1)

    assert service.count("Pull") == 1


async def test_a_pull_that_the_service_holds_ends_empty_by_our_deadline(
    service: ScriptedPubSub, pubsub: PubSub
) -> None:
    service.answer("Pull", None)

    assert await pubsub.subscription("s").pull(1) == ()


async def test_ack_ids_that_failed_for_now_are_sent_again_alone(service: ScriptedPubSub, pubsub: PubSub) -> None:
    verdicts = refused_ids(a="TRANSIENT_FAILURE_UNORDERED_ACK_ID", b="PERMANENT_FAILURE_INVALID_ACK_ID")
    service.answer("ModifyAckDeadline", verdicts, DONE)

    expired = await pubsub.subscription("s").extend(["a", "b", "c"], 30)

    assert expired == {"b"}
    assert [extended(request) for _, request in service.calls] == [["a", "b", "c"], ["a"]]


async def test_ack_ids_that_keep_failing_are_given_up(service: ScriptedPubSub, pubsub: PubSub) -> None:
    service.answer("Acknowledge", refused_ids(a="TRANSIENT_FAILURE_OTHER"))

    with pytest.raises(QueueServiceError, match="TRANSIENT_FAILURE_OTHER"):
        await pubsub.subscription("s").ack("a")


async def test_an_ack_whose_first_reply_was_lost_is_no_error(service: ScriptedPubSub, pubsub: PubSub) -> None:
    service.answer("Acknowledge", None, refused_ids(a="PERMANENT_FAILURE_INVALID_ACK_ID"))

    await pubsub.subscription("s").ack("a")

    assert service.count("Acknowledge") == 2


async def test_many_ack_ids_go_in_requests_of_a_thousand(service: ScriptedPubSub, pubsub: PubSub) -> None:
    service.answer("ModifyAckDeadline", DONE)

    await pubsub.subscription("s").extend([str(number) for number in range(2500)], 30)

    assert [len(extended(request)) for _, request in service.calls] == [1000, 1000, 500]


def extended(request: bytes) -> list[str]:
    return list(types.ModifyAckDeadlineRequest.deserialize(request).ack_ids)
