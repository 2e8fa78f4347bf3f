"""The pipeline's client on the embedded Pub/Sub server, through Google's own clients."""

from collections.abc import Iterator

import pytest
from google import pubsub_v1
from google.api_core import exceptions

from schemas.events import Event, encode, event_attributes
from schemas.job import TranscriptionJob, parse_job
from tests.support.jobs.messages import failed_event, job_document, progress_event
from worker.client import completions, own_subscription, submit, wait_for
from worker.embedded.own_thread import in_thread
from worker.embedded.pubsub import EmbeddedPubSub

PROJECT = {"project_id": "p"}
JOBS, DONE = "projects/p/topics/jobs", "projects/p/topics/done"


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[pubsub_v1.PublisherClient]:
    with in_thread(EmbeddedPubSub()) as server:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", server.target)
        with pubsub_v1.PublisherClient() as client:
            client.create_topic(name=JOBS)
            client.create_topic(name=DONE)
            yield client


@pytest.fixture
def subscriber(publisher: pubsub_v1.PublisherClient) -> Iterator[pubsub_v1.SubscriberClient]:  # noqa: ARG001 - the server
    with pubsub_v1.SubscriberClient() as client:
        yield client


def announce(publisher: pubsub_v1.PublisherClient, *events: Event) -> None:
    for event in events:
        message = {"data": encode(event), "attributes": event_attributes(event)}
        publisher.publish(topic=DONE, messages=[message])


def test_a_submitted_job_is_on_the_topic(subscriber: pubsub_v1.SubscriberClient) -> None:
    subscriber.create_subscription(name="projects/p/subscriptions/worker", topic=JOBS)

    submit(job_document(), **PROJECT, topic="jobs")

    pulled = subscriber.pull(subscription="projects/p/subscriptions/worker", max_messages=1)
    job, _ = parse_job(pulled.received_messages[0].message.data)
    assert job == TranscriptionJob(**job_document())


def test_an_own_subscription_brings_the_end_of_the_job(publisher: pubsub_v1.PublisherClient) -> None:
    with own_subscription(**PROJECT, topic="done", video_id="1") as subscription:
        announce(publisher, failed_event("e0", job_id="other"), progress_event(), failed_event("e1"))
        event = wait_for("vod-1", **PROJECT, subscription=subscription, timeout_seconds=10)

    assert event.event_id == "e1"
    with pytest.raises(exceptions.NotFound), completions(**PROJECT, subscription=subscription) as events:
        next(events)


def test_an_event_above_grpc_s_default_limit_arrives(publisher: pubsub_v1.PublisherClient) -> None:
    with own_subscription(**PROJECT, topic="done") as subscription:
        announce(publisher, failed_event("e1", metadata={"padding": "x" * 6_000_000}))
        event = wait_for("vod-1", **PROJECT, subscription=subscription, timeout_seconds=10)

    assert len(event.job.metadata["padding"]) == 6_000_000


def test_events_of_other_jobs_go_on_to_their_own_readers(publisher: pubsub_v1.PublisherClient) -> None:
    with own_subscription(**PROJECT, topic="done") as shared:
        announce(publisher, *(failed_event(f"e{number}", job_id=f"vod-{number}") for number in range(3)))

        ends = [
            wait_for(f"vod-{number}", **PROJECT, subscription=shared, timeout_seconds=10).event_id
            for number in (2, 1, 0)
        ]

    assert ends == ["e2", "e1", "e0"]


def test_an_event_whose_handler_failed_comes_again_and_one_handled_does_not(
    publisher: pubsub_v1.PublisherClient,
) -> None:
    def fail(_: Event) -> None:
        raise RuntimeError

    with own_subscription(**PROJECT, topic="done") as subscription:
        where = {**PROJECT, "subscription": subscription, "timeout_seconds": 10}
        announce(publisher, failed_event("e1"))
        with pytest.raises(RuntimeError), completions(**where) as events:
            fail(next(events))
        with completions(**where) as events:
            again = next(events)
        with completions(**{**where, "timeout_seconds": 0.5}) as events:
            rest = list(events)

    assert again.event_id == "e1"
    assert rest == []
