"""Jobs whose end is awaited, and one reader of a subscription for all the calls of a process that await one."""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from schemas.codes import ErrorCode
from schemas.events import CompletedEvent, Event, FailedEvent
from schemas.ids import event_id, job_identity
from schemas.job import TranscriptionJob, encode_job, parse_job
from worker.client.connections import PULL_SECONDS, EventSubscription, event_in

if TYPE_CHECKING:  # importing Google's client costs 0.7 s, so it waits for the first call
    from google.pubsub_v1 import ReceivedMessage

PULLED_AT_ONCE = 100
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 1.0
"""Pauses between pulls that brought no awaited event, so that released events do not make the reader spin."""

JobEnd: TypeAlias = "Future[CompletedEvent | FailedEvent]"
"""Resolves to the event that ends a job. Cancelling it ends the wait."""


@dataclass(frozen=True, kw_only=True)
class AwaitedJob:
    """A job whose end is awaited.

    Two requests may have one job id; the second one fails with `JOB_ID_CONFLICT` while the first goes on. The id of an
    event is a function of the request, so a reader that knows the request can match the event.
    """

    job_id: str
    identity: str | None = None
    """The request's identity; None where it is not known, or holds fields that this version does not know."""
    run: int = 0
    """Events of earlier runs, which come again with every redelivery, do not end the wait."""

    @classmethod
    def of(cls, job: TranscriptionJob | Mapping[str, Any] | str, run: int = 0) -> "AwaitedJob":
        """Read what is known of the job. Raises `schemas.job.JobRejected` for a mapping that is no job."""
        if isinstance(job, str):
            return cls(job_id=job, run=run)
        if isinstance(job, TranscriptionJob):
            return cls(job_id=job.job_id, identity=job_identity(job), run=run)
        parsed, unknown = parse_job(encode_job(job))
        return cls(job_id=parsed.job_id, identity=None if unknown else job_identity(parsed), run=run)

    def concerns(self, event: Event) -> bool:
        """Return False for events of other jobs, and for the end of another request with the same job id.

        Where only the id is known, a `JOB_ID_CONFLICT` counts as another's: the request that holds the id is not
        refused. A message that was no job has no request to compare; its failure counts as this job's.
        """
        if event.job.job_id != self.job_id:
            return False
        if not isinstance(event, CompletedEvent | FailedEvent):
            return True
        code = event.error.error_code if isinstance(event, FailedEvent) else None
        if code in (ErrorCode.INVALID_JOB, ErrorCode.UNSUPPORTED_SCHEMA_VERSION):
            return True
        if self.identity is None:
            return code != ErrorCode.JOB_ID_CONFLICT
        outcome = "failed" if isinstance(event, FailedEvent) else "completed"
        ours = event_id(self.identity, run=event.run, event_type=event.event_type, outcome=outcome)
        return event.event_id == ours

    def ends_with(self, event: Event) -> bool:
        """Return True for the event that says how the job ended."""
        return isinstance(event, CompletedEvent | FailedEvent) and event.run >= self.run and self.concerns(event)


@dataclass(eq=False)
class _Session:
    """The time from the first call that waits to the last one, and the thread that reads meanwhile."""

    opened: "Future[EventSubscription]" = field(default_factory=Future)
    idle: threading.Event = field(default_factory=threading.Event)


class EventReader:
    """Reads a subscription in one thread while any call waits, and hands each job's end to the calls that await it.

    Every call gets its event when it arrives, so that a short job never waits for a long one. Ends that are not
    awaited in this process are released at once, for other processes that share the subscription; ends older than
    `stale_seconds` have outlived every call and are acknowledged, and so are progress and cost events. The reader
    closes the client of the subscription that `open_subscription` yields, to end a pull.
    """

    def __init__(
        self, open_subscription: Callable[[], AbstractContextManager[EventSubscription]], *, stale_seconds: float
    ) -> None:
        self._open, self._stale = open_subscription, timedelta(seconds=stale_seconds)
        self._lock = threading.RLock()  # a session that ends at once is noticed within `_start`
        self._waiting: list[tuple[AwaitedJob, JobEnd]] = []
        self._session: _Session | None = None

    def end_of(self, job: AwaitedJob) -> JobEnd:
        """Start to wait for a job's end. Blocks until the subscription is open: submit the job after that.

        Raises what opening the subscription raises. The future fails with what reading it raises. A caller that
        loses interest must cancel the future.
        """
        end: JobEnd = Future()
        with self._lock:
            self._waiting.append((job, end))
            session = self._session or self._start()
        end.add_done_callback(self._forget)
        with ExitStack() as undo:
            undo.callback(end.cancel)  # at Ctrl-C too: a reader that still waits would keep the process alive
            session.opened.result()
            undo.pop_all()
        return end

    def _start(self) -> _Session:
        session = self._session = _Session()
        thread = ThreadPoolExecutor(1, thread_name_prefix="completion-events")
        thread.submit(self._read, session).add_done_callback(lambda read: self._stopped(session, read.exception()))
        thread.shutdown(wait=False)
        return session

    def _forget(self, end: JobEnd) -> None:
        with self._lock:
            self._waiting = [(job, other) for job, other in self._waiting if other is not end]
            session = self._session
            if self._waiting or session is None:
                return
            self._session = None
        session.idle.set()
        if session.opened.done() and session.opened.exception() is None:
            session.opened.result().close()

    def _stopped(self, session: _Session, error: BaseException | None) -> None:
        """Fail the calls that still wait for this session when its thread has ended by an error."""
        if error is None:
            return
        with self._lock:
            current = self._session is session
            waiting = [end for _, end in self._waiting] if current else []
            self._session = None if current else self._session
        if not session.opened.done():
            session.opened.set_exception(error)
        for end in waiting:
            if end.set_running_or_notify_cancel():
                end.set_exception(error)

    def _read(self, session: _Session) -> None:
        with self._open() as subscription:
            session.opened.set_result(subscription)
            pause = FIRST_PAUSE_SECONDS
            while not session.idle.is_set():
                received = subscription.pull(PULLED_AT_ONCE, PULL_SECONDS)
                if received is None or self._hand_out(subscription, received):
                    pause = FIRST_PAUSE_SECONDS
                else:
                    session.idle.wait(pause)
                    pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _hand_out(self, subscription: EventSubscription, received: "Sequence[ReceivedMessage]") -> bool:
        """Settle the messages, then resolve the calls whose jobs have ended. Returns False when there was none."""
        done: list[str] = []
        others: list[str] = []
        ends: list[tuple[JobEnd, CompletedEvent | FailedEvent]] = []
        for message in received:
            event = event_in(message)
            awaiting = self._awaiting(event)
            is_foreign = isinstance(event, CompletedEvent | FailedEvent) and not awaiting and not subscription.exclusive
            ends += awaiting
            (others if is_foreign and self._may_be_awaited(message) else done).append(message.ack_id)
        subscription.release(others)
        subscription.ack(done)
        for end, event in ends:
            self._resolve(end, event)
        return bool(ends)

    def _resolve(self, end: JobEnd, event: CompletedEvent | FailedEvent) -> None:
        """Hand a call its event, once: an answer can hold an event twice, and so can a session and the next one."""
        with self._lock:
            is_open = not end.done() and not end.running() and end.set_running_or_notify_cancel()
        if is_open:
            end.set_result(event)

    def _awaiting(self, event: Event | None) -> list[tuple[JobEnd, CompletedEvent | FailedEvent]]:
        if not isinstance(event, CompletedEvent | FailedEvent):
            return []
        with self._lock:
            return [(end, event) for job, end in self._waiting if job.ends_with(event)]

    def _may_be_awaited(self, received: "ReceivedMessage") -> bool:
        published = cast("datetime", received.message.publish_time)
        return datetime.now(timezone.utc) - published < self._stale
