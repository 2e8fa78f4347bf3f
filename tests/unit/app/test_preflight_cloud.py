"""Checks at the start of buckets and topics that refuse, and of those that only fail to answer."""

import pytest

from schemas.job import URGENT_FILTER
from worker.app.preflight import _found, bucket_findings, loop_findings, urgent_findings
from worker.core.delivery.fitness import Part
from worker.errors import ObjectForbidden, QueueServiceError
from worker.ports import SubscriptionFacts
from worker.settings import read_settings


class Scripted:
    """A probe that raises one error after another, then passes."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.runs = list(errors), 0

    async def __call__(self) -> None:
        self.runs += 1
        if self.errors:
            raise self.errors.pop(0)


async def test_a_service_that_fails_once_is_asked_again() -> None:
    probe = Scripted(QueueServiceError("publish to", "topic", "503"))

    found = await _found(Part(name="topic", resource="topic", probe=probe))

    assert (found.ok, probe.runs) == (True, 2)


async def test_a_refusal_is_final_and_names_the_role_to_grant() -> None:
    probe = Scripted(ObjectForbidden("read", "gs://audio"))

    found = await _found(Part(name="audio bucket gs://audio", resource="gs://audio", probe=probe))

    assert (found.ok, probe.runs) == (False, 1)
    assert "roles/storage.objectViewer" in found.detail


def facts(name: str, **changes: str) -> SubscriptionFacts:
    return SubscriptionFacts(
        name=name,
        ack_deadline_seconds=60,
        exactly_once=False,
        dead_letter_topic=None,
        max_delivery_attempts=None,
        **{"topic": "jobs", **changes},
    )


def test_an_urgent_subscription_on_the_same_topic_with_the_filter_is_right() -> None:
    assert list(urgent_findings(facts("plain"), facts("urgent", filter='attributes.priority="urgent"'))) == []


@pytest.mark.parametrize(
    ("plain", "urgent", "said"),
    [
        ({}, {}, "it has no filter, not attributes.priority"),
        ({}, {"filter": "attributes:priority"}, "a filter cannot be changed: delete the subscription"),
        ({}, {"filter": URGENT_FILTER, "topic": "other"}, "its topic is other, the plain one's is jobs"),
        ({"filter": "NOT attributes:priority"}, {"filter": URGENT_FILTER}, "jobs that it leaves out are never done"),
    ],
)
def test_what_is_wrong_with_a_pair_of_subscriptions_is_named(
    plain: dict[str, str], urgent: dict[str, str], said: str
) -> None:
    (found,) = urgent_findings(facts("plain", **plain), facts("urgent", **urgent))

    assert said in found.detail
    assert found.ok is bool(plain)


def test_a_topic_of_the_worker_s_own_messages_that_is_the_topic_of_the_jobs_is_refused() -> None:
    topics = {"COMPLETION_TOPIC": "projects/p/topics/jobs", "DEAD_LETTER_TOPIC": "projects/p/topics/dead"}

    (found,) = loop_findings(facts("plain", topic="projects/p/topics/jobs"), topics)

    assert (found.name, found.ok) == ("COMPLETION_TOPIC projects/p/topics/jobs", False)
    assert "would come back as jobs" in found.detail


def test_output_buckets_without_the_output_bucket_are_reported() -> None:
    buckets = {"OUTPUT_BUCKET": "out", "STATE_BUCKET": "state", "OUTPUT_BUCKETS": "a,b"}

    (found,) = bucket_findings(read_settings(buckets).cloud)

    assert (found.ok, found.advice) == (True, True)
    assert "leaves out OUTPUT_BUCKET out" in found.detail
    assert list(bucket_findings(read_settings({**buckets, "OUTPUT_BUCKETS": "a,out"}).cloud)) == []
