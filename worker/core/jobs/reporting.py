"""What the worker says about a job: its events and its dead letter, as messages ready to be stored and published.

Pure: times and ids come in. Messages are made once, kept in the result marker, and published from there as often as
the job is delivered, so that every repetition is byte for byte the same.
"""

import hashlib
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from schemas.codes import ErrorCode, ErrorType, EventType, Method
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
    ProgressEvent,
    TranscriptionMetadata,
    encode,
    event_attributes,
)
from schemas.ids import dead_letter_id, event_id
from schemas.job import JobEcho
from schemas.state import NO_WASTE, Checkpoint, StoredMessage, Waste
from worker.core.costs.bill import Cost
from worker.core.jobs.routing import Route
from worker.core.jobs.transcription import Progress
from worker.errors import InvalidJob, Retryable, WorkerError
from worker.ports import EngineFacts

WORKER_FAULT_ACTION = "look for this support_reference in the worker's log; a fixed worker can replay the job"

MOST_MESSAGE_CHARACTERS = 4_000
"""The most characters of an error in events, letters and the log: some exceptions quote all that they choked on."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Which job, in which run, the messages are about."""

    echo: JobEcho
    identity: str
    run: int

    def head(self, event_type: EventType, outcome: str, now: datetime) -> dict[str, Any]:
        """The fields that every event opens with."""
        return {
            "event_id": event_id(self.identity, run=self.run, event_type=event_type, outcome=outcome),
            "occurred_at": now,
            "run": self.run,
            "job": self.echo,
        }


@dataclass(kw_only=True)
class Account:
    """What is known of one attempt, filled in as the job goes its way; a failure reports what is there by then."""

    worker: str
    started_at: datetime
    """By the wall clock, which may be set back: for times that people read, never for durations."""
    began: float
    """The same moment on the monotonic clock."""
    queued_seconds: float
    seconds: float = 0.0
    """Processing time by the monotonic clock, once the job has ended."""
    method_requested: Method | None = None
    route: Route | None = None
    engine: EngineFacts | None = None
    deepgram_model: str | None = None
    deliveries: int | None = None
    video_id: str | None = None
    """Once the message has been read."""
    chunk_seconds: float | None = None
    """The length that chunks are cut to."""
    expected_seconds: float | None = None
    """What the container says; `audio_seconds` is what was decoded."""
    audio_seconds: float | None = None
    chunks: Sequence[Checkpoint] = field(default_factory=tuple)
    chunks_resumed: int = 0
    waste: Waste = NO_WASTE
    """The cost of this run's failed attempts, earlier ones included."""
    progress: Progress | None = None
    cost: Cost | None = None
    """Once the job has ended."""

    @property
    def method_used(self) -> Method | None:
        """By the engines that did the chunks; before there are any, by the route."""
        engines = {chunk.engine for chunk in self.chunks}
        if len(engines) > 1:
            return Method.HYBRID
        if engines:
            return Method(engines.pop())
        return Method(self.route.method) if self.route else None

    @property
    def model_name(self) -> str | None:
        """The model that heard the file; Parakeet's where both took part."""
        if self.method_used is Method.DEEPGRAM:
            return self.deepgram_model
        return self.engine.model_name if self.engine else None

    @property
    def fallback_reasons(self) -> dict[str, int]:
        """Error code -> chunks that fell back because of it."""
        counts = Counter(chunk.fallback_reason.value for chunk in self.chunks if chunk.fallback_reason)
        return dict(sorted(counts.items()))

    def so_far(self, cost: Cost) -> dict[str, Any]:
        """Return the fields that completed and failed metadata share."""
        reasons = self.fallback_reasons
        by_parakeet = any(chunk.engine == "parakeet" for chunk in self.chunks)
        return {
            "method_requested": self.method_requested,
            "method_used": self.method_used,
            "routing_reason": self.route.reason if self.route else None,
            "model_name": self.model_name,
            "gpu_used": by_parakeet and self.engine is not None and self.engine.uses_gpu,
            "device_used": self.engine.device_name if by_parakeet and self.engine else None,
            "fallback_used": bool(reasons),
            "fallback_reasons": reasons,
            "chunks_fallback": sum(reasons.values()),
            "chunks_resumed": self.chunks_resumed,
            "audio_duration_seconds": self.audio_seconds,
            "processing_time_seconds": self.seconds,
            "queue_time_seconds": self.queued_seconds,
            "cost_estimate_usd": cost.usd,
            "deliveries": self.deliveries,
            "worker": self.worker,
        }


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """What a completed job produced."""

    artefacts: Artefacts
    flags: Flags
    words_count: int
    paragraphs_count: int


def completion(
    subject: Subject, account: Account, outcomes: Outcomes, cost: Cost, now: datetime
) -> tuple[StoredMessage, ...]:
    """The completed event and its cost event."""
    shared = account.so_far(cost)
    seconds, processing = account.audio_seconds or 0.0, shared["processing_time_seconds"]
    metadata = TranscriptionMetadata(
        **shared,
        chunks_total=len(account.chunks),
        words_count=outcomes.words_count,
        paragraphs_count=outcomes.paragraphs_count,
        processing_speed_ratio=seconds / processing if processing else 0.0,
    )
    event = CompletedEvent(
        **subject.head(EventType.COMPLETED, "completed", now),
        artefacts=outcomes.artefacts,
        flags=outcomes.flags,
        transcription_metadata=metadata,
    )
    return _stored(event), _stored(cost_event(subject, cost, "completed", now))


def failure(
    subject: Subject,
    account: Account,
    error: Exception,
    letter: DeadLetter,
    cost: Cost,
    now: datetime,
) -> tuple[StoredMessage, ...]:
    """The dead letter, the failed event that refers to it, and the cost event."""
    return failed(subject, error, letter, PartialMetadata(**account.so_far(cost)), cost, now)


def failed(
    subject: Subject, error: Exception, letter: DeadLetter, known: PartialMetadata, cost: Cost, now: datetime
) -> tuple[StoredMessage, ...]:
    """Return the messages of `failure` with the metadata that are known."""
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
    return buried, _stored(event), _stored(cost_event(subject, cost, "failed", now))


def cost_event(subject: Subject, cost: Cost, outcome: Outcome, now: datetime) -> CostEvent:
    """What the run cost."""
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
        **asdict(cost.attribution),
    )


def progress(
    subject: Subject, method: str, *, done: int, total: int | None, seconds: float, eta: float | None, now: datetime
) -> StoredMessage:
    """A job is under way; the id counts the chunks done."""
    event = ProgressEvent(
        **subject.head(EventType.PROGRESS, str(done), now),
        chunks_done=done,
        chunks_total=total,
        audio_seconds_done=seconds,
        method=Method(method),
        eta_seconds=eta,
    )
    return _stored(event)


def dead_letter(
    subject: Subject,
    account: Account,
    error: Exception,
    original: OriginalMessage,
    *,
    attempts: int,
    crashes: int,
    first_seen: datetime,
    now: datetime,
) -> DeadLetter:
    """The envelope of a message that is given up on, with all that a replay needs."""
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
        worker=account.worker,
        traceback_digest=_traceback_digest(error),
    )


def code_of(error: Exception) -> ErrorCode:
    """The contract's code of any error; one that the worker did not raise on purpose is its own fault."""
    return error.code if isinstance(error, WorkerError) else ErrorCode.INTERNAL_ERROR


def _failure(error: Exception, reference: str) -> Failure:
    transient = isinstance(error, Retryable) or not isinstance(error, WorkerError)
    return Failure(
        error_type=ErrorType.TRANSIENT if transient else ErrorType.PERMANENT,
        error_code=code_of(error),
        error_message=_message_of(error),
        is_retryable=transient,
        suggested_action=error.suggested_action if isinstance(error, WorkerError) else WORKER_FAULT_ACTION,
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


def _stored(event: Event) -> StoredMessage:
    return StoredMessage(topic="completion", data=encode(event).decode(), attributes=event_attributes(event))
