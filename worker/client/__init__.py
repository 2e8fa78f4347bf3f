"""The pipeline's side: publish a job, then read what became of it. Synchronous; Python 3.10 on; the base install.

    job = {"job_id": "vod-1", "video_id": "1", "audio_uri": "gs://bucket/1.mp3"}
    submit(job, project_id="my-project", topic="transcription-jobs")
    with completions(project_id="my-project", subscription="pipeline") as events:
        for event in events:
            handle(event)

**Settling.** Asking for the next event, or leaving the `with` block, acks the event in hand; leaving it by an exception
gives the event back. Events come at least once: within one block duplicates are dropped by `event_id` (also an event
that comes again because its handling outlasted the ack deadline); across blocks and processes that is the reader's
business. Messages that are no event this version knows are acked, with a warning in the log.

**One subscription, one reader.** Pub/Sub hands each event on a subscription to one of its readers, so every process
that waits for jobs needs a subscription of its own: a permanent one, or `own_subscription`. With `job_id` given, the
events of other jobs stay leased until the block is left (or their ack deadline passes) and then go back, which delays
other readers and counts as a delivery attempt. Calls of `worker.client.pipeline` share one reader a process and have
no such delay.

`PUBSUB_EMULATOR_HOST` is honoured. Google's own exceptions (`google.api_core.exceptions`) pass through.
"""

import heapq
import logging
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from schemas.codes import ErrorCode
from schemas.events import CompletedEvent, Event, FailedEvent
from schemas.job import URGENT, TranscriptionJob, encode_job, parse_job
from schemas.text import plain
from worker.client.connections import AwaitedJob, EventSubscription, Inbox, publisher_client, subscriber_client

if TYPE_CHECKING:  # importing Google's client costs 0.7 s, so it waits for the first call
    from google.cloud.pubsub_v1 import PublisherClient
    from google.pubsub_v1 import SubscriberClient

MOST_NAMES, MOST_OF_A_NAME = 20, 60
"""The most unknown fields that a warning names, and the most characters of each."""

log = logging.getLogger(__name__)


def submit(
    job: TranscriptionJob | Mapping[str, Any],
    *,
    project_id: str,
    topic: str,
    publisher: "PublisherClient | None" = None,
    timeout_seconds: float = 60.0,
    retry_of: FailedEvent | None = None,
) -> str:
    """Publish a job and return its message id once Pub/Sub has confirmed it.

    Raises `schemas.job.JobRejected` for what is no job, before anything is sent, and `TimeoutError` when no
    confirmation came; the job may have been published all the same, and submitting it again is safe: one job id is one
    job. Who submits often should hand in a `publisher`, which stays theirs to stop.

    A failed job that is submitted again only repeats its failure. `retry_of` asks for its next run: the event must be
    of this job and `is_retryable`, or say that it `EXPIRED` (then give it a later `expires_at`); anything else raises
    `ValueError`. Await that run's end with `wait_for(job, run=retry_of.run + 1, ...)`.
    """
    data = encode_job(job)
    if not isinstance(job, TranscriptionJob):
        _, unknown = parse_job(data)
        if unknown:
            names = ", ".join(plain(name, MOST_OF_A_NAME) for name in heapq.nsmallest(MOST_NAMES, unknown))
            log.warning("the worker will ignore these fields of the job: %s (%d fields)", names, len(unknown))
    attributes = attributes_of(job)
    if retry_of is not None:
        attributes["run"] = str(_next_run(retry_of, data))
    with publisher_client(publisher) as client:
        future = client.publish(f"projects/{project_id}/topics/{topic}", data, **attributes)
        try:
            return str(future.result(timeout=timeout_seconds))
        except FutureTimeout as exc:
            raise TimeoutError(f"no confirmation from Pub/Sub within {timeout_seconds:g} s") from exc


def attributes_of(job: TranscriptionJob | Mapping[str, Any]) -> dict[str, str]:
    """Return the message attributes of a job, which the filter of the urgent subscription reads."""
    priority = job.priority if isinstance(job, TranscriptionJob) else job.get("priority")
    return {"priority": URGENT} if priority == URGENT else {}


def _next_run(failed: FailedEvent, data: bytes) -> int:
    job_id = parse_job(data)[0].job_id
    if failed.job.job_id != job_id:
        raise ValueError(f"retry_of is an event of job {failed.job.job_id!r}, not of {job_id!r}")
    if not failed.error.is_retryable and failed.error.error_code != ErrorCode.EXPIRED:
        raise ValueError(f"{failed.error.error_code} is not retryable: {failed.error.suggested_action}")
    return failed.run + 1


@contextmanager
def completions(
    *,
    project_id: str,
    subscription: str,
    job_id: str | None = None,
    timeout_seconds: float | None = None,
    subscriber: "SubscriberClient | None" = None,
) -> Iterator[Iterator[Event]]:
    """Iterate over the events on a subscription of the completion topic; see the module for who settles what.

    `timeout_seconds` counts from entering the block; when it has passed the iteration ends. None: it never ends.
    """
    path = f"projects/{project_id}/subscriptions/{subscription}"
    with _inbox(subscriber, path, timeout_seconds, lambda event: job_id in (None, event.job.job_id)) as inbox:
        yield inbox


@contextmanager
def _inbox(
    subscriber: "SubscriberClient | None", path: str, timeout_seconds: float | None, wants: Callable[[Event], bool]
) -> Iterator[Inbox]:
    with subscriber_client(subscriber) as client:
        inbox = Inbox(EventSubscription(client, path), timeout_seconds, wants=wants)
        try:
            yield inbox
            inbox.ack()
        finally:
            inbox.close()


def wait_for(
    job: TranscriptionJob | Mapping[str, Any] | str,
    *,
    project_id: str,
    subscription: str,
    timeout_seconds: float,
    subscriber: "SubscriberClient | None" = None,
    run: int = 0,
) -> CompletedEvent | FailedEvent:
    """Block until the job has completed or failed. Raises `TimeoutError` if it has not ended in time.

    With the job itself, only the end of this request is returned, its `JOB_ID_CONFLICT` included if another request
    used the id before. With the id alone, a `JOB_ID_CONFLICT` counts as another request's end. Ends of runs before
    `run` are ignored.
    """
    awaited = AwaitedJob.of(job, run)
    path = f"projects/{project_id}/subscriptions/{subscription}"
    with _inbox(subscriber, path, timeout_seconds, awaited.concerns) as events:
        for event in events:
            if awaited.ends_with(event) and isinstance(event, CompletedEvent | FailedEvent):
                return event
    raise TimeoutError(f"job {awaited.job_id} has not ended within {timeout_seconds:g} s")


@contextmanager
def own_subscription(
    *, project_id: str, topic: str, video_id: str | None = None, subscriber: "SubscriberClient | None" = None
) -> Iterator[str]:
    """Create a subscription on the completion topic for the block; yield its name.

    Enter the block before submitting: the subscription receives only later events; with `video_id`, only that video's.
    Needs `pubsub.subscriptions.create` and `.delete` in the project, and `pubsub.topics.attachSubscription` on the
    topic. If it cannot be deleted, or the process dies, Pub/Sub removes it after a day without a reader.
    """
    from google.api_core.exceptions import GoogleAPIError

    name = f"pipeline-{uuid.uuid4().hex}"
    path = f"projects/{project_id}/subscriptions/{name}"
    with subscriber_client(subscriber) as client:
        client.create_subscription(
            request={
                "name": path,
                "topic": f"projects/{project_id}/topics/{topic}",
                "ack_deadline_seconds": 60,
                "filter": f'attributes.video_id = "{video_id}"' if video_id else "",
                "expiration_policy": {"ttl": {"seconds": 24 * 3600}},
                "message_retention_duration": {"seconds": 24 * 3600},
            }
        )
        try:
            yield name
        finally:
            try:
                client.delete_subscription(request={"subscription": path})
            except GoogleAPIError as exc:  # the block's own result or error matters more
                log.warning("subscription %s could not be deleted and will expire: %s", path, exc)
