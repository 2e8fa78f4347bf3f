"""Google's Pub/Sub clients, opened for a block, and the reading of events through them.

`Inbox` reads for one loop, event by event; `EventReader` reads for all the calls of a process that await a job's end.
`PUBSUB_EMULATOR_HOST` is honoured.
"""

import logging
import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from schemas.codes import ErrorCode
from schemas.events import CompletedEvent, Event, EventUnreadable, FailedEvent, parse_event
from schemas.ids import event_id, job_identity
from schemas.job import TranscriptionJob, encode_job, parse_job

if TYPE_CHECKING:  # importing Google's client costs 0.7 s, so it waits for the first call
    from google.cloud.pubsub_v1 import PublisherClient
    from google.pubsub_v1 import ReceivedMessage, SubscriberClient
    from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

PULL_SECONDS = 60.0
IDLE_SECONDS = 0.2
REMEMBERED = 10_000
PULLED_AT_ONCE = 100
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 1.0
"""Pauses between pulls that brought no awaited event, so that released events do not make the reader spin."""
_SETTLED_AT_ONCE = 1_000

JobEnd: TypeAlias = "Future[CompletedEvent | FailedEvent]"
"""Resolves to the event that ends a job. Cancelling it ends the wait."""

log = logging.getLogger(__name__)


@contextmanager
def publisher_client(given: "PublisherClient | None") -> "Iterator[PublisherClient]":
    """Yield the given client, which stays open, or a new one that is closed after the block."""
    if given is not None:
        yield given
        return
    from google.cloud.pubsub_v1 import PublisherClient

    client = PublisherClient()
    try:
        yield client
    finally:
        client.stop()
        client.transport.close()


@contextmanager
def subscriber_client(given: "SubscriberClient | None") -> "Iterator[SubscriberClient]":
    """Yield the given client, which stays open, or a new one that is closed after the block."""
    if given is not None:
        yield given
        return
    from google import pubsub_v1

    emulator = os.environ.get("PUBSUB_EMULATOR_HOST")
    with pubsub_v1.SubscriberClient(transport=_emulator_transport(emulator) if emulator else None) as client:
        yield client


def _emulator_transport(host: str) -> "SubscriberGrpcTransport":
    """Open a channel to an emulator without the 4 MB limit of answers that the client's own channel has."""
    import grpc
    from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

    channel = grpc.insecure_channel(host, options=[("grpc.max_receive_message_length", -1)])
    return SubscriberGrpcTransport(host=host, channel=channel)


class EventSubscription:
    """A subscription of the completion topic; failures that pass are logged, and do not end the reading.

    `exclusive`: no other process reads it, so events that are not awaited here are acknowledged.
    """

    def __init__(self, subscriber: "SubscriberClient", path: str, *, exclusive: bool = False) -> None:
        self.path, self.exclusive = path, exclusive
        self._subscriber = subscriber
        self._last_pull_failed = self._is_stopped = False

    def pull(self, most: int, seconds: float) -> "Sequence[ReceivedMessage] | None":
        """Return the next messages, none after a failure that passes, or None when none came in time."""
        from google.api_core import exceptions

        request = {"subscription": self.path, "max_messages": most}
        had_failed, self._last_pull_failed = self._last_pull_failed, False
        try:
            return self._subscriber.pull(request=request, retry=None, timeout=seconds).received_messages
        except exceptions.DeadlineExceeded:
            return None
        except (exceptions.ServerError, exceptions.TooManyRequests, exceptions.Aborted) as exc:
            self._last_pull_failed = True
            if not had_failed:  # an outage is one line, however long it lasts
                log.warning("pull from %s failed, trying again: %s", self.path, exc)
            return ()
        except (exceptions.Cancelled, ValueError):  # the channel was closed, during the call or before it
            if self._is_stopped:
                return None
            raise

    def ack(self, ack_ids: Sequence[str]) -> None:
        """Settle messages for good."""
        self._settle(self._subscriber.acknowledge, ack_ids)

    def release(self, ack_ids: Sequence[str]) -> None:
        """Give messages back, to be delivered again at once."""
        self._settle(self._subscriber.modify_ack_deadline, ack_ids, ack_deadline_seconds=0)

    def stop(self) -> None:
        """Expect that the connection may close, for example during the pull of another thread."""
        self._is_stopped = True

    def close(self) -> None:
        """Stop, and close the client's connection, which ends a pull in flight."""
        self.stop()
        self._subscriber.transport.close()  # type: ignore[no-untyped-call]

    def _settle(self, call: Callable[..., None], ack_ids: Sequence[str], **options: Any) -> None:
        from google.api_core import exceptions

        for start in range(0, len(ack_ids), _SETTLED_AT_ONCE):
            some = ack_ids[start : start + _SETTLED_AT_ONCE]
            try:
                call(request={"subscription": self.path, "ack_ids": some, **options})
            except (exceptions.GoogleAPIError, ValueError) as exc:  # an expired lease, no service, a closed channel
                log.warning("%d events of %s could not be settled and may come again: %s", len(some), self.path, exc)


def event_in(received: "ReceivedMessage") -> Event | None:
    """Return the message's event; None, with a warning in the log, for what is no event."""
    try:
        return parse_event(received.message.data)
    except EventUnreadable as exc:
        log.warning("dropped message %s, which is no event: %s", received.message.message_id, exc)
        return None


class Inbox:
    """The iterator behind `completions`: at most one event in hand, unsettled.

    Events that `wants` refuses stay leased until `close`.
    """

    def __init__(
        self,
        subscription: EventSubscription,
        timeout_seconds: float | None = None,
        *,
        wants: Callable[[Event], bool] = lambda _event: True,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._subscription, self._wants = subscription, wants
        self._monotonic, self._sleep = monotonic, sleep
        self._deadline = float("inf") if timeout_seconds is None else monotonic() + timeout_seconds
        self._in_hand: tuple[str, str] | None = None
        self._others: deque[str] = deque(maxlen=REMEMBERED)
        self._handled: OrderedDict[str, None] = OrderedDict()

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        self.ack()
        while (remaining := self._deadline - self._monotonic()) > 0:
            # One at a time: an event that waited here for the one before it would use up its lease.
            messages = self._subscription.pull(1, min(remaining, PULL_SECONDS))
            for message in messages or ():
                event = event_in(message)
                if event is not None and not self._wants(event):
                    self._others.append(message.ack_id)
                elif event is None or event.event_id in self._handled:
                    self._subscription.ack([message.ack_id])
                else:
                    self._in_hand = (message.ack_id, event.event_id)
                    return event
            if messages is not None and not messages:
                self._sleep(IDLE_SECONDS)
        raise StopIteration

    def ack(self) -> None:
        """Settle the event in hand, if any, for good."""
        if self._in_hand is None:
            return
        ack_id, event_id = self._in_hand
        self._in_hand = None
        self._handled[event_id] = None
        if len(self._handled) > REMEMBERED:
            self._handled.popitem(last=False)
        self._subscription.ack([ack_id])

    def close(self) -> None:
        """Give back the event in hand and those of other jobs, and end the iteration."""
        self._subscription.release([*self._others, *([self._in_hand[0]] if self._in_hand else [])])
        self._others.clear()
        self._in_hand = None
        self._deadline = float("-inf")
        self._subscription.stop()


@dataclass(frozen=True, kw_only=True)
class AwaitedJob:
    """A job whose end is awaited.

    Two requests may have one job id: the second fails with `JOB_ID_CONFLICT` while the first goes on. An event's id is
    a function of the request, so a reader that knows the request can match the event.
    """

    job_id: str
    identity: str | None = None
    """The request's identity; None where the request is not known, or has fields that this version does not know."""
    run: int = 0
    """Events of earlier runs, which redeliveries repeat, do not end the wait."""

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

        Where only the id is known, a `JOB_ID_CONFLICT` is another's. A message that was no job has no request to
        compare; its failure counts as this job's.
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
        outcome = "completed" if code is None else "failed"
        return event.event_id == event_id(self.identity, run=event.run, event_type=event.event_type, outcome=outcome)

    def ends_with(self, event: Event) -> bool:
        """Return True for the event that says how the job ended."""
        return isinstance(event, CompletedEvent | FailedEvent) and event.run >= self.run and self.concerns(event)


@dataclass(eq=False)
class _Session:
    """The time while calls wait, and a thread reads."""

    opened: "Future[EventSubscription]" = field(default_factory=Future)
    idle: threading.Event = field(default_factory=threading.Event)


class EventReader:
    """Reads a subscription in one thread while any call waits, and hands each job's end to the calls that await it.

    Every call gets its event when it arrives. Ends that are not awaited here are released at once, for other processes
    that share the subscription; progress and cost events are acknowledged, and so are ends older than `stale_seconds`,
    which have outlived every call. To end a pull the reader closes the client that `open_subscription` yields.
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

        Raises what opening the subscription raises; the future fails with what reading it raises. A caller that loses
        interest must cancel the future.
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
        """Settle the messages, then resolve the calls whose jobs have ended. Returns False for none."""
        ends: list[tuple[JobEnd, CompletedEvent | FailedEvent]] = []
        done: list[str] = []
        others: list[str] = []
        oldest = datetime.now(timezone.utc) - self._stale
        for message in received:
            event = event_in(message)
            is_foreign = False
            if isinstance(event, CompletedEvent | FailedEvent):
                with self._lock:
                    awaiting = [end for job, end in self._waiting if job.ends_with(event)]
                ends += ((end, event) for end in awaiting)
                published = cast("datetime", message.message.publish_time)
                is_foreign = not awaiting and not subscription.exclusive and published > oldest
            (others if is_foreign else done).append(message.ack_id)
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
