import logging
from typing import Any

import pytest
from google.api_core import exceptions
from google.pubsub_v1 import PullResponse

from tests.support.jobs.messages import failed_event, progress_event
from tests.support.queues.scripted_subscriber import ScriptedSubscriber
from worker.client import connections
from worker.client.connections import EventSubscription, Inbox


def reading(subscriber: ScriptedSubscriber, **settings: Any) -> Inbox:
    return Inbox(
        EventSubscription(subscriber, "projects/p/subscriptions/s"),  # type: ignore[arg-type]
        monotonic=subscriber.monotonic,
        sleep=subscriber.sleep,
        **{"timeout_seconds": 10.0, **settings},
    )


def test_events_come_one_by_one_and_the_end_comes_with_the_timeout() -> None:
    subscriber = ScriptedSubscriber(progress_event("p1"), failed_event("e1"))

    event_ids = [event.event_id for event in reading(subscriber)]

    assert event_ids == ["p1", "e1"]
    assert subscriber.monotonic() == pytest.approx(10)
    assert subscriber.pull_requests[0] == {"subscription": "projects/p/subscriptions/s", "max_messages": 1}


def test_an_event_is_acked_when_the_next_one_is_asked_for() -> None:
    subscriber = ScriptedSubscriber(failed_event("e1"), failed_event("e2"))
    events = reading(subscriber)

    next(events)
    acked_while_in_hand = list(subscriber.acked)
    next(events)

    assert acked_while_in_hand == []
    assert subscriber.acked == ["ack-1"]


def test_a_duplicate_is_acked_and_not_shown_again() -> None:
    subscriber = ScriptedSubscriber(failed_event("e1"), failed_event("e1"), failed_event("e2"))

    event_ids = [event.event_id for event in reading(subscriber)]

    assert event_ids == ["e1", "e2"]
    assert subscriber.acked == ["ack-1", "ack-2", "ack-3"]


def test_memory_for_duplicates_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "REMEMBERED", 2)
    subscriber = ScriptedSubscriber(*(failed_event(name) for name in ["e1", "e2", "e3", "e3", "e1"]))

    event_ids = [event.event_id for event in reading(subscriber)]

    assert event_ids == ["e1", "e2", "e3", "e1"]


def test_closing_it_returns_the_event_in_hand_and_reads_nothing_after_that() -> None:
    subscriber = ScriptedSubscriber(failed_event("e1"), failed_event("e1"))
    events = reading(subscriber, timeout_seconds=None)

    next(events)
    events.close()
    events.close()
    rest = list(events)

    assert (subscriber.acked, subscriber.given_back, rest) == ([], ["ack-1"], [])


def test_events_of_other_jobs_are_held_until_it_is_closed_and_never_acked() -> None:
    subscriber = ScriptedSubscriber(failed_event("e1", job_id="other"), failed_event("e2"))
    events = reading(subscriber, wants=lambda event: event.job.job_id == "vod-1")

    event = next(events)
    held = list(subscriber.given_back)
    events.ack()
    events.close()

    assert event.event_id == "e2"
    assert held == []
    assert subscriber.given_back == ["ack-1"]
    assert subscriber.acked == ["ack-2"]


def test_a_message_that_is_no_event_is_acked_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    subscriber = ScriptedSubscriber(b'{"event_type": "transcription.started"}')

    events = list(reading(subscriber))

    assert events == []
    assert subscriber.acked == ["ack-1"]
    assert "dropped message ack-1, which is no event" in caplog.text


@pytest.mark.parametrize(
    "error",
    [
        exceptions.ServiceUnavailable("x"),
        exceptions.InternalServerError("x"),
        exceptions.Aborted("x"),
        exceptions.Unknown("x"),
        exceptions.ResourceExhausted("x"),
    ],
)
def test_a_pull_that_failed_for_now_is_tried_again(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    subscriber = ScriptedSubscriber(error, error, failed_event("e1"))

    event = next(reading(subscriber))

    assert event.event_id == "e1"
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert subscriber.monotonic() == pytest.approx(2 * connections.IDLE_SECONDS)


def test_each_outage_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    gone = exceptions.ServiceUnavailable("x")
    events = reading(ScriptedSubscriber(*[gone] * 9, failed_event("e1"), *[gone] * 9, failed_event("e2")))

    event_ids = [next(events).event_id, next(events).event_id]

    assert event_ids == ["e1", "e2"]
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2


def test_a_missing_subscription_raises_to_the_caller() -> None:
    subscriber = ScriptedSubscriber(exceptions.NotFound("no such subscription"))

    with pytest.raises(exceptions.NotFound):
        next(reading(subscriber))


@pytest.mark.parametrize("error", [exceptions.Cancelled("x"), ValueError("Cannot invoke RPC on closed channel!")])
def test_a_pull_that_the_end_of_the_block_cuts_off_ends_the_iteration_of_another_thread(error: Exception) -> None:
    class Closing(ScriptedSubscriber):
        def pull(self, *, request: dict[str, Any], retry: None, timeout: float) -> PullResponse:
            events.close()
            return super().pull(request=request, retry=retry, timeout=timeout)

    events = reading(Closing(error), timeout_seconds=None)

    assert list(events) == []


def test_a_client_that_is_closed_while_events_are_read_raises_to_the_caller() -> None:
    with pytest.raises(exceptions.Cancelled):
        next(reading(ScriptedSubscriber(exceptions.Cancelled("x"))))


def test_empty_answers_do_not_spin() -> None:
    subscriber = ScriptedSubscriber(*[None] * 1000)

    events = list(reading(subscriber))

    assert events == []
    assert len(subscriber.pull_requests) <= 10 / connections.IDLE_SECONDS + 1


def test_without_a_timeout_it_waits_on() -> None:
    subscriber = ScriptedSubscriber(*[exceptions.DeadlineExceeded("nothing came")] * 100, failed_event("e1"))

    event = next(reading(subscriber, timeout_seconds=None))

    assert event.event_id == "e1"


def test_an_ack_that_fails_is_logged_and_its_duplicate_dropped(caplog: pytest.LogCaptureFixture) -> None:
    subscriber = ScriptedSubscriber(failed_event("e1"), failed_event("e1"))
    events = reading(subscriber)

    next(events)
    subscriber.settle_error = exceptions.FailedPrecondition("PERMANENT_FAILURE_INVALID_ACK_ID")
    rest = list(events)

    assert rest == []
    assert "could not be settled" in caplog.text
