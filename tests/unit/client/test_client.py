import json
import subprocess
import sys
from concurrent.futures import Future
from datetime import datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any

import pytest
from google.api_core import exceptions

from schemas.codes import ErrorCode, EventType
from schemas.events import Event, FailedEvent
from schemas.ids import event_id, job_identity
from schemas.job import JobRejected, TranscriptionJob, parse_job
from tests.support.jobs.messages import failed_event, job_document, progress_event
from tests.support.queues.scripted_subscriber import ScriptedSubscriber
from worker.client import completions, own_subscription, submit, wait_for
from worker.client.connections import AwaitedJob

WHERE = {"project_id": "p", "subscription": "s"}


class RecordingPublisher:
    """Confirms every message, or none."""

    def __init__(self, *, confirms: bool = True) -> None:
        self._confirms = confirms
        self.published: list[tuple[str, bytes]] = []
        self.attributes: list[dict[str, str]] = []

    def publish(self, topic: str, data: bytes, **attributes: str) -> "Future[str]":
        self.published.append((topic, data))
        self.attributes.append(attributes)
        future: Future[str] = Future()
        if self._confirms:
            future.set_result("message-1")
        return future


class SubscriptionKeeper:
    """Remembers what was created and deleted."""

    def __init__(self) -> None:
        self.created: list[dict[str, Any]] = []
        self.deleted: list[str] = []

    def create_subscription(self, *, request: dict[str, Any]) -> None:
        self.created.append(request)

    def delete_subscription(self, *, request: dict[str, Any]) -> None:
        self.deleted.append(request["subscription"])


def test_a_job_is_published_to_the_topic_and_its_message_id_returned() -> None:
    publisher = RecordingPublisher()
    job = TranscriptionJob(**job_document(team_id="t"))

    message_id = submit(job, project_id="p", topic="jobs", publisher=publisher)

    ((topic, data),) = publisher.published
    assert message_id == "message-1"
    assert topic == "projects/p/topics/jobs"
    assert parse_job(data) == (job, frozenset())


def test_a_job_may_be_a_mapping_and_travels_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    publisher = RecordingPublisher()

    submit(job_document(force_metod="parakeet"), project_id="p", topic="jobs", publisher=publisher)

    assert json.loads(publisher.published[0][1]) == job_document(force_metod="parakeet")
    assert "the worker will ignore these fields of the job: force_metod" in caplog.text


def test_a_job_may_hold_any_mapping_and_a_datetime() -> None:
    publisher = RecordingPublisher()
    metadata = MappingProxyType({"n": 1})
    job = MappingProxyType(
        job_document(metadata=metadata, expires_at=datetime(2030, 1, 2, tzinfo=timezone(timedelta(hours=2))))
    )

    submit(job, project_id="p", topic="jobs", publisher=publisher)

    parsed, _ = parse_job(publisher.published[0][1])
    assert parsed.expires_at == datetime(2030, 1, 1, 22, tzinfo=timezone.utc)
    assert parsed.metadata == {"n": 1}
    assert AwaitedJob.of(job) == AwaitedJob.of(parsed)


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("metadata", {"file": object()}, "message: cannot be written as JSON: .*object"),
        ("metadata", {(1, 2): 3}, "message: cannot be written as JSON: .*tuple"),
        ("metadata", {"ratio": float("nan")}, "message: is not valid JSON"),
        ("expires_at", datetime(2030, 1, 1), "expires_at: must be an RFC 3339 time with its offset"),  # noqa: DTZ001
    ],
)
def test_a_value_that_no_message_can_hold_is_refused_before_anything_is_sent(
    field: str, value: Any, complaint: str
) -> None:
    publisher = RecordingPublisher()
    job = job_document(**{field: value})

    with pytest.raises(JobRejected, match=complaint):
        submit(job, project_id="p", topic="jobs", publisher=publisher)
    with pytest.raises(JobRejected, match=complaint):
        wait_for(job, **WHERE, timeout_seconds=5, subscriber=ScriptedSubscriber())

    assert publisher.published == []


@pytest.mark.parametrize("job", [None, 7, '{"job_id": "vod-1"}', ["job_id", "vod-1"], [("job_id", "vod-1")]])
def test_what_is_no_mapping_is_refused_in_words(job: Any) -> None:
    with pytest.raises(JobRejected, match="message: must be a JSON object"):
        submit(job, project_id="p", topic="jobs", publisher=RecordingPublisher())


def test_what_is_no_job_is_never_published() -> None:
    publisher = RecordingPublisher()

    with pytest.raises(JobRejected, match="audio_uri: must have the form"):
        submit(job_document(audio_uri="1.mp3"), project_id="p", topic="jobs", publisher=publisher)

    assert publisher.published == []


def test_a_publish_without_confirmation_times_out() -> None:
    publisher = RecordingPublisher(confirms=False)

    with pytest.raises(TimeoutError, match="no confirmation"):
        submit(job_document(), project_id="p", topic="jobs", publisher=publisher, timeout_seconds=0)


def test_leaving_the_block_acks_the_event_in_hand() -> None:
    subscriber = ScriptedSubscriber(failed_event("e1"))

    with completions(**WHERE, subscriber=subscriber) as events:
        next(events)

    assert (subscriber.acked, subscriber.given_back) == (["ack-1"], [])


def test_breaking_out_of_the_loop_acks_the_event_in_hand() -> None:
    subscriber = ScriptedSubscriber(failed_event("e1"), failed_event("e2"))

    with completions(**WHERE, subscriber=subscriber) as events:
        for _ in events:
            break

    assert (subscriber.acked, subscriber.given_back) == (["ack-1"], [])


def test_after_the_block_no_event_is_taken() -> None:
    subscriber = ScriptedSubscriber(failed_event("e1"), failed_event("e2"))

    with completions(**WHERE, subscriber=subscriber) as events:
        next(events)
    late = next(events, None)

    assert late is None
    assert len(subscriber.pull_requests) == 1


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_gives_the_event_in_hand_back(error: type[BaseException]) -> None:
    subscriber = ScriptedSubscriber(failed_event("e1"))

    def handle(_: Event) -> None:
        raise error

    with pytest.raises(error), completions(**WHERE, subscriber=subscriber) as events:
        handle(next(events))

    assert (subscriber.acked, subscriber.given_back) == ([], ["ack-1"])


def test_waiting_for_a_job_skips_its_progress_and_returns_its_end() -> None:
    subscriber = ScriptedSubscriber(
        failed_event("e0", job_id="other"), progress_event("p1"), failed_event("e1"), failed_event("e2")
    )

    event = wait_for("vod-1", **WHERE, timeout_seconds=5, subscriber=subscriber)

    assert event.event_id == "e1"
    assert subscriber.acked == ["ack-2", "ack-3"]
    assert subscriber.given_back == ["ack-1"]


def test_waiting_in_vain_times_out() -> None:
    with pytest.raises(TimeoutError, match="vod-1 has not ended within 0 s"):
        wait_for("vod-1", **WHERE, timeout_seconds=0, subscriber=ScriptedSubscriber())


def test_an_own_subscription_is_made_for_the_block_and_removed_after_it() -> None:
    keeper = SubscriptionKeeper()

    with own_subscription(project_id="p", topic="done", video_id="1", subscriber=keeper) as name:
        made = list(keeper.created)

    path = f"projects/p/subscriptions/{name}"
    assert [(request["name"], request["topic"], request["filter"]) for request in made] == [
        (path, "projects/p/topics/done", 'attributes.video_id = "1"')
    ]
    assert keeper.deleted == [path]


def test_an_own_subscription_is_removed_after_an_error_too() -> None:
    keeper = SubscriptionKeeper()

    with pytest.raises(RuntimeError), own_subscription(project_id="p", topic="done", subscriber=keeper):
        raise RuntimeError

    assert keeper.created[0]["filter"] == ""
    assert len(keeper.deleted) == 1


@pytest.mark.parametrize("error", [exceptions.NotFound("x"), exceptions.ServiceUnavailable("x")])
def test_an_own_subscription_that_cannot_be_deleted_costs_no_result(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    class Keeper(SubscriptionKeeper):
        def delete_subscription(self, *, request: dict[str, Any]) -> None:
            raise error from LookupError(request["subscription"])

    with own_subscription(project_id="p", topic="done", subscriber=Keeper()) as name:
        pass

    assert f"subscriptions/{name} could not be deleted and will expire" in caplog.text


def test_importing_the_client_loads_nothing_of_google_s() -> None:
    program = "import sys, worker.client; print([name for name in sys.modules if name.partition('.')[0] == 'google'])"

    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)

    assert loaded.stdout.strip() == "[]"


def ended(request: dict[str, Any], *, run: int = 0, code: ErrorCode = ErrorCode.AUDIO_NOT_FOUND) -> FailedEvent:
    """The failed event of that request, as a worker makes it."""
    job = parse_job(json.dumps(request).encode())[0]
    name = event_id(job_identity(job), run=run, event_type=EventType.FAILED, outcome="failed")
    event = failed_event(name, job_id=job.job_id)
    error = event.error.model_copy(update={"error_code": code, "is_retryable": code is ErrorCode.STORAGE_SERVICE_ERROR})
    return event.model_copy(update={"run": run, "error": error})


MINE, ANOTHERS = job_document(), job_document(audio_uri="gs://audio-bucket/other.mp3")
REFUSED = ErrorCode.JOB_ID_CONFLICT


@pytest.mark.parametrize("job", [MINE, TranscriptionJob(**MINE), MINE["job_id"]], ids=["mapping", "job", "id"])
def test_the_conflict_of_another_request_with_the_same_id_does_not_end_the_wait(job: Any) -> None:
    conflict, end = ended(ANOTHERS, code=REFUSED), ended(MINE)
    subscriber = ScriptedSubscriber(conflict, end)

    event = wait_for(job, **WHERE, timeout_seconds=5, subscriber=subscriber)

    assert event == end
    assert (subscriber.acked, subscriber.given_back) == (["ack-2"], ["ack-1"])


def test_a_request_refused_for_its_id_gets_its_own_end_and_not_the_first_requests() -> None:
    subscriber = ScriptedSubscriber(ended(ANOTHERS), ended(MINE, code=REFUSED))

    event = wait_for(MINE, **WHERE, timeout_seconds=5, subscriber=subscriber)

    assert isinstance(event, FailedEvent)
    assert event.error.error_code is REFUSED


def test_a_message_that_no_worker_could_read_ends_the_wait() -> None:
    refused = ended(ANOTHERS, code=ErrorCode.INVALID_JOB)

    assert wait_for(MINE, **WHERE, timeout_seconds=5, subscriber=ScriptedSubscriber(refused)) == refused


def test_a_request_with_fields_of_a_newer_version_is_matched_by_its_id_alone() -> None:
    newer = {**MINE, "speaker_hints": 2}
    end = ended(ANOTHERS)  # a newer worker may count the field among the request

    assert wait_for(newer, **WHERE, timeout_seconds=5, subscriber=ScriptedSubscriber(end)) == end


def test_the_end_of_an_earlier_run_does_not_end_the_wait_for_the_next() -> None:
    subscriber = ScriptedSubscriber(ended(MINE, run=0), ended(MINE, run=1))

    event = wait_for(MINE, **WHERE, timeout_seconds=5, subscriber=subscriber, run=1)

    assert event.run == 1


@pytest.mark.parametrize("code", [ErrorCode.STORAGE_SERVICE_ERROR, ErrorCode.EXPIRED])
def test_a_retry_asks_for_the_run_after_the_failed_one(code: ErrorCode) -> None:
    publisher = RecordingPublisher()

    submit(MINE, project_id="p", topic="jobs", publisher=publisher, retry_of=ended(MINE, run=2, code=code))

    assert publisher.attributes == [{"run": "3"}]


@pytest.mark.parametrize(
    ("failed", "complaint"),
    [
        (ended(MINE), "AUDIO_NOT_FOUND is not retryable: upload the audio"),
        (ended(job_document(job_id="other"), code=ErrorCode.STORAGE_SERVICE_ERROR), "is an event of job 'other'"),
    ],
)
def test_what_is_no_retryable_failure_of_the_job_is_not_retried(failed: FailedEvent, complaint: str) -> None:
    publisher = RecordingPublisher()

    with pytest.raises(ValueError, match=complaint):
        submit(MINE, project_id="p", topic="jobs", publisher=publisher, retry_of=failed)

    assert publisher.published == []


def test_a_warning_of_many_unknown_fields_names_some(caplog: pytest.LogCaptureFixture) -> None:
    names = {f"field-{number}-{'x' * 200}": 1 for number in range(1000)}

    submit(job_document(**names), project_id="p", topic="jobs", publisher=RecordingPublisher())

    assert "1000 fields" in caplog.text
    assert len(caplog.text) < 4_000


@pytest.mark.parametrize(("priority", "attributes"), [("urgent", {"priority": "urgent"}), ("high", {}), (7, {})])
def test_an_urgent_job_has_the_attribute_that_the_urgent_subscription_filters_by(
    priority: object, attributes: dict[str, str]
) -> None:
    publisher = RecordingPublisher()
    job = job_document(priority=priority)

    for form in (job, TranscriptionJob(**job)):
        submit(form, project_id="p", topic="jobs", publisher=publisher)

    assert publisher.attributes == [attributes, attributes]
