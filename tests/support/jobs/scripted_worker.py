"""A worker whose every step is a call of the test: take a job from the queue, publish an event."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime

from google import pubsub_v1
from google.cloud import storage

from schemas.codes import Artefact, ErrorCode, EventType
from schemas.events import (
    Artefacts,
    CompletedEvent,
    Event,
    FailedEvent,
    Flags,
    StoredArtefact,
    TranscriptionMetadata,
    encode,
    event_attributes,
)
from schemas.ids import event_id, job_identity
from schemas.job import TranscriptionJob, parse_job
from tests.support.jobs.messages import TEN_O_CLOCK, failed_event
from worker.embedded.local_cloud import (
    COMPLETION_TOPIC,
    JOBS_SUBSCRIPTION,
    OUTPUT_BUCKET,
    PROJECT,
)

CONTENT = {Artefact.WORDS: b"words", Artefact.PARAGRAPHS: b"paragraphs", Artefact.TRANSCRIPT: b"{}"}


class ScriptedWorker:
    """Takes jobs from the queue of a local cloud and publishes given events."""

    def __init__(self, subscriber: pubsub_v1.SubscriberClient, publisher: pubsub_v1.PublisherClient) -> None:
        self._subscriber, self._publisher = subscriber, publisher

    def take(self) -> tuple[TranscriptionJob, Mapping[str, str]]:
        """Return the next job and the attributes of its message."""
        path = f"projects/{PROJECT}/subscriptions/{JOBS_SUBSCRIPTION}"
        (received,) = self._subscriber.pull(subscription=path, max_messages=1, timeout=50).received_messages
        self._subscriber.acknowledge(subscription=path, ack_ids=[received.ack_id])
        return parse_job(received.message.data)[0], dict(received.message.attributes)

    def publish(self, *events: Event) -> None:
        """Publish events on the completion topic."""
        topic = f"projects/{PROJECT}/topics/{COMPLETION_TOPIC}"
        messages = [{"data": encode(event), "attributes": event_attributes(event)} for event in events]
        self._publisher.publish(topic=topic, messages=messages)


@contextmanager
def scripted_worker() -> Iterator[ScriptedWorker]:
    """A worker on the servers that the environment names."""
    with pubsub_v1.SubscriberClient() as subscriber, pubsub_v1.PublisherClient() as publisher:
        yield ScriptedWorker(subscriber, publisher)


def completed(job: TranscriptionJob, run: int = 0, content: Mapping[Artefact, bytes] = CONTENT) -> CompletedEvent:
    """Store the artefacts and return the event that names them."""
    return CompletedEvent(
        event_id=id_of(job, EventType.COMPLETED, "completed", run),
        occurred_at=TEN_O_CLOCK,
        run=run,
        job=job.echo(),
        artefacts=Artefacts(
            words=stored(job, Artefact.WORDS, content[Artefact.WORDS]),
            paragraphs=stored(job, Artefact.PARAGRAPHS, content[Artefact.PARAGRAPHS]),
            transcript=stored(job, Artefact.TRANSCRIPT, content[Artefact.TRANSCRIPT]),
        ),
        flags=Flags(no_speech=True),
        transcription_metadata=TranscriptionMetadata(
            method_requested="auto",
            method_used="parakeet",
            routing_reason="cost_optimization",
            model_name="tiny",
            gpu_used=False,
            device_used="cpu",
            fallback_used=False,
            fallback_reasons={},
            chunks_total=1,
            chunks_fallback=0,
            chunks_resumed=0,
            words_count=0,
            paragraphs_count=0,
            audio_duration_seconds=60,
            processing_time_seconds=1,
            queue_time_seconds=1,
            processing_speed_ratio=60,
            cost_estimate_usd=0.001,
            deliveries=1,
            worker="scripted",
        ),
    )


def stored(job: TranscriptionJob, artefact: Artefact, content: bytes) -> StoredArtefact:
    """Write an artefact of the job and return its address."""
    uri = artefact.uri(job.output_prefix(OUTPUT_BUCKET), job.video_id)
    with storage.Client(project=PROJECT) as client:
        blob = client.bucket(uri.bucket).blob(uri.name)
        blob.upload_from_string(content)
        return StoredArtefact(uri=str(uri), generation=blob.generation, crc32c=blob.crc32c, bytes=len(content))


def failed(
    job: TranscriptionJob,
    code: ErrorCode = ErrorCode.AUDIO_NOT_FOUND,
    *,
    run: int = 0,
    retryable: bool = False,
    occurred_at: datetime = TEN_O_CLOCK,
) -> FailedEvent:
    """Return the event of a run that failed."""
    event = failed_event()
    error = event.error.model_copy(update={"error_code": code, "is_retryable": retryable})
    changes = {"job": job.echo(), "run": run, "occurred_at": occurred_at, "error": error}
    return event.model_copy(update={**changes, "event_id": id_of(job, EventType.FAILED, "failed", run)})


def id_of(job: TranscriptionJob, event_type: EventType, outcome: str, run: int) -> str:
    """Return the id that a worker gives to the end of this very request."""
    return event_id(job_identity(job), run=run, event_type=event_type, outcome=outcome)
