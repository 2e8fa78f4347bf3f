import logging
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import datetime, timezone
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from google.pubsub_v1 import PubsubMessage, PullResponse, ReceivedMessage

from schemas.events import Event as JobEvent
from schemas.events import encode
from tests.support.jobs.messages import failed_event, progress_event
from tests.support.queues.scripted_subscriber import ScriptedSubscriber
from worker.client import connections
from worker.client.connections import AwaitedJob, EventReader, EventSubscription, JobEnd, _Session


class Batches(ScriptedSubscriber):
    """Answers every pull with all of the events, until its connection is closed."""

    def __init__(self, *events: JobEvent) -> None:
        super().__init__()
        self._events = events
        self.transport = SimpleNamespace(close=lambda: None)

    def pull(self, *, request: dict[str, Any], retry: None, timeout: float) -> PullResponse:
        del retry, timeout
        self.pull_requests.append(request)
        published = datetime.now(timezone.utc)
        messages = (
            (event.event_id, PubsubMessage(data=encode(event), publish_time=published)) for event in self._events
        )
        received = [ReceivedMessage(ack_id=ack_id, message=message) for ack_id, message in messages]
        return PullResponse(received_messages=received)


def reader_of(subscriber: ScriptedSubscriber) -> EventReader:
    @contextmanager
    def opened() -> Iterator[EventSubscription]:
        yield EventSubscription(subscriber, "projects/p/subscriptions/s")  # type: ignore[arg-type]

    return EventReader(opened, stale_seconds=600)


def test_every_waiter_of_a_job_gets_its_end_and_a_duplicate_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    end = failed_event("e1")
    reader = reader_of(Batches(progress_event("p1"), end, end, failed_event("e2", job_id="other")))
    job = AwaitedJob(job_id="vod-1")

    first, second = reader.end_of(job), reader.end_of(job)

    assert (first.result(10), second.result(10)) == (end, end)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_call_that_another_session_is_about_to_answer_is_left_to_it() -> None:
    end: JobEnd = Future()
    end.set_running_or_notify_cancel()

    reader_of(Batches())._resolve(end, failed_event("e1"))

    assert not end.done()


def test_an_error_while_opening_the_subscription_reaches_the_call() -> None:
    @contextmanager
    def opened() -> Iterator[EventSubscription]:
        raise PermissionError("no")
        yield

    with pytest.raises(PermissionError):
        EventReader(opened, stale_seconds=600).end_of(AwaitedJob(job_id="vod-1"))


class InterruptedOnce(Future[EventSubscription]):
    """Ctrl-C comes while the first caller waits."""

    interrupts = 1

    def result(self, timeout: float | None = None) -> EventSubscription:
        self.interrupts -= 1
        if not self.interrupts:
            raise KeyboardInterrupt
        return super().result(timeout)


def test_ctrl_c_while_the_subscription_opens_leaves_no_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    session = _Session(opened=InterruptedOnce())
    monkeypatch.setattr(connections, "_Session", lambda: session)
    may_open, closed = Event(), Event()

    @contextmanager
    def opened() -> Iterator[EventSubscription]:
        may_open.wait(10)
        yield EventSubscription(Batches(), "projects/p/subscriptions/s")  # type: ignore[arg-type]
        closed.set()

    with pytest.raises(KeyboardInterrupt):
        EventReader(opened, stale_seconds=600).end_of(AwaitedJob(job_id="vod-1"))
    may_open.set()

    assert closed.wait(10)
