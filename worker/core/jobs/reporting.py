"""Events and dead letter of a job, as messages ready to be stored and published.

Pure functions: times and ids are parameters. Messages are created once, stored in the result marker, and published
from there whenever the job is delivered, so that every repetition is byte for byte the same.
"""

import hashlib
import traceback
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict

from schemas.codes import ErrorCode, ErrorType, EventType
from schemas.dead_letter import DeadLetter, OriginalMessage, dead_letter_attributes, encode_dead_letter
from schemas.events import (
    Artefacts,
    CompletedEvent,
    CostEvent,
    Event,
    FailedEvent,
    Failure,
    Flags,
    Outcome,
    PartialMetadata,
    TranscriptionMetadata,
    encode,
    event_attributes,
)
from schemas.ids import dead_letter_id, event_id
from schemas.job import JobEcho
from schemas.state import StoredMessage
from worker.core.costs.bill import Cost
from worker.core.jobs.phases import Claimed, Ended, Received, Routed, Transcribing, Understood
from worker.errors import InvalidJob, Retryable, WorkerError

WORKER_FAULT_ACTION = "look for this support_reference in the worker's log; a fixed worker can replay the job"

MOST_MESSAGE_CHARACTERS = 4_000
"""The most characters of an error in events, letters and the log: some exceptions quote all that they choked on."""


class OpeningFields(TypedDict):
    """The fields that every event opens with."""

    event_id: str
    occurred_at: datetime
    run: int
    job: JobEcho


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The job and the run that the messages are about."""

    echo: JobEcho
    identity: str
    run: int

    def head(self, event_type: EventType, outcome: str, now: datetime) -> OpeningFields:
        """Return the fields that every event opens with."""
        return OpeningFields(
            event_id=event_id(self.identity, run=self.run, event_type=event_type, outcome=outcome),
            occurred_at=now,
            run=self.run,
            job=self.echo,
        )


class KeytermFields(TypedDict):
    """Keyterms that the transcript has, and those that had no effect."""

    keyterms_found: tuple[str, ...]
    keyterms_unspeakable: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class JobOutput:
    """Results of a completed job."""

    artefacts: Artefacts
    flags: Flags
    words_count: int
    paragraphs_count: int


def completion(
    subject: Subject, ended: Ended[Transcribing], outcomes: JobOutput, keyterms: KeytermFields, now: datetime
) -> tuple[StoredMessage, ...]:
    """Return the completed event and its cost event."""
    phase, spent, chunks = ended.phase, ended.spent, ended.spent.chunks
    seconds = (spent.audio_seconds or 0.0) / phase.channels
    metadata = TranscriptionMetadata(
        method_requested=phase.job.force_method,
        routing_reason=phase.route.reason,
        chunks_total=len(chunks),
        chunks_resumed=phase.chunks_resumed,
        words_count=outcomes.words_count,
        paragraphs_count=outcomes.paragraphs_count,
        audio_duration_seconds=seconds,
        processing_speed_ratio=seconds / ended.seconds if ended.seconds else 0.0,
        deliveries=phase.deliveries,
        gaps=spent.gaps,
        **keyterms,
        **_known_of_any(ended),
    )
    event = CompletedEvent(
        **subject.head(EventType.COMPLETED, "completed", now),
        artefacts=outcomes.artefacts,
        flags=outcomes.flags,
        transcription_metadata=metadata,
    )
    return stored(event), stored(cost_event(subject, ended.cost, "completed", now))


def log_fields(ended: Ended[Transcribing], outcomes: JobOutput) -> dict[str, object]:
    """Return what the log says of a completed job, beside its cost."""
    phase, spent = ended.phase, ended.spent
    seconds = spent.audio_seconds or 0.0
    return {
        "method": phase.method_used(spent.chunks),
        "engines": [chunk.engine for chunk in spent.chunks],
        "seconds": round(ended.seconds, 3),
        "audio_seconds": round(seconds, 3),
        "speed": round(seconds / ended.seconds, 1) if ended.seconds else 0.0,
        "words": outcomes.words_count,
        "flags": [name for name, is_set in outcomes.flags.model_dump().items() if is_set],
        "chunks_resumed": phase.chunks_resumed,
        "artefacts": outcomes.artefacts.uris,
    }


def known_of(ended: Ended[Received]) -> PartialMetadata:
    """Return what the last phase of a failed attempt knew."""
    phase = ended.phase
    return PartialMetadata(
        method_requested=phase.job.force_method if isinstance(phase, Understood) else None,
        routing_reason=phase.route.reason if isinstance(phase, Routed) else None,
        chunks_resumed=phase.chunks_resumed if isinstance(phase, Transcribing) else 0,
        audio_duration_seconds=ended.spent.duration_seconds,
        deliveries=phase.deliveries if isinstance(phase, Claimed) else None,
        **_known_of_any(ended),
    )


def _known_of_any(ended: Ended[Any]) -> dict[str, Any]:
    """Return the metadata that completed and failed jobs have alike."""
    phase, spent = ended.phase, ended.spent
    device = phase.device(spent.chunks)
    return {
        "method_used": phase.method_used(spent.chunks),
        "model_name": phase.model_name(spent.chunks),
        "gpu_used": device is not None and device.uses_gpu,
        "device_used": device.device_name if device else None,
        "fallback_used": bool(spent.chunks_fallback),
        "fallback_reasons": spent.fallback_reasons,
        "chunks_fallback": spent.chunks_fallback,
        "processing_time_seconds": ended.seconds,
        "queue_time_seconds": phase.receipt.queued_seconds,
        "cost_estimate_usd": ended.cost.usd,
        "worker": phase.receipt.worker,
    }


def failure(
    subject: Subject, error: Exception, letter: DeadLetter, known: PartialMetadata, cost: Cost, now: datetime
) -> tuple[StoredMessage, ...]:
    """Return the dead letter, the failed event that refers to it, and the cost event."""
    event = FailedEvent(
        **subject.head(EventType.FAILED, "failed", now),
        error=_failure(error, letter.dead_letter_id),
        transcription_metadata=known,
    )
    buried = StoredMessage(
        topic="dead_letter",
        data=encode_dead_letter(letter).decode(),
        attributes=dead_letter_attributes(letter, subject.echo),
    )
    return buried, stored(event), stored(cost_event(subject, cost, "failed", now))


def cost_event(subject: Subject, cost: Cost, outcome: Outcome, now: datetime) -> CostEvent:
    """Return the cost of the run."""
    return CostEvent(
        **subject.head(EventType.COST, outcome, now),
        outcome=outcome,
        audio_seconds=cost.audio_seconds,
        price_book=cost.price_book,
        usd_total=cost.usd,
        engines=cost.engines,
        baseline=cost.baseline,
        savings_usd=cost.savings_usd,
        savings_percent=cost.savings_percent,
        channels=cost.channels,
        **vars(cost.attribution),
    )


def dead_letter(
    subject: Subject,
    error: Exception,
    original: OriginalMessage,
    *,
    worker: str,
    attempts: int,
    crashes: int,
    first_seen: datetime,
    now: datetime,
) -> DeadLetter:
    """Return the dead letter of a message that is given up, with everything that a replay needs."""
    code = code_of(error)
    return DeadLetter(
        dead_letter_id=dead_letter_id(subject.identity, run=subject.run, code=code),
        run=subject.run,
        code=code,
        message=_message_of(error),
        violations=error.violations if isinstance(error, InvalidJob) else (),
        original=original,
        attempts=attempts,
        crashes=crashes,
        first_seen=first_seen,
        failed_at=now,
        worker=worker,
        traceback_digest=_traceback_digest(error),
        suggested_action=_action_for(error),
    )


def code_of(error: Exception) -> ErrorCode:
    """Return the contract's code of any error; `INTERNAL_ERROR` for one that the worker did not raise on purpose."""
    return error.code if isinstance(error, WorkerError) else ErrorCode.INTERNAL_ERROR


def _action_for(error: Exception) -> str:
    return error.suggested_action if isinstance(error, WorkerError) else WORKER_FAULT_ACTION


def _failure(error: Exception, reference: str) -> Failure:
    transient = isinstance(error, Retryable) or not isinstance(error, WorkerError)
    return Failure(
        error_type=ErrorType.TRANSIENT if transient else ErrorType.PERMANENT,
        error_code=code_of(error),
        error_message=_message_of(error),
        is_retryable=transient,
        suggested_action=_action_for(error),
        support_reference=reference,
        violations=error.violations if isinstance(error, InvalidJob) else (),
    )


def _message_of(error: Exception) -> str:
    message = str(error) if isinstance(error, WorkerError) else f"{type(error).__name__}: {error}"
    return message if len(message) <= MOST_MESSAGE_CHARACTERS else f"{message[: MOST_MESSAGE_CHARACTERS - 3]}..."


def _traceback_digest(error: Exception) -> str:
    """Equal for errors raised at the same place on the same way, whatever their message."""
    way = "".join(f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__))
    return hashlib.sha256(f"{type(error).__name__}{way}".encode()).hexdigest()[:16]


def stored(event: Event) -> StoredMessage:
    """Return the event as a message on the completion topic."""
    return StoredMessage(topic="completion", data=encode(event).decode(), attributes=event_attributes(event))
