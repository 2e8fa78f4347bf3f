"""Events on the completion topic (contract, sections 3 and 6), and their CloudEvents attributes.

A newer worker breaks no older reader: unknown fields are ignored, and an unknown member of a set that may grow
(`ErrorCode`, for one) is read as a plain string.
"""

from typing import Annotated, Literal

from pydantic import Field, ValidationError

from schemas.codes import EventType
from schemas.job import JobEcho
from schemas.wire import (
    Count,
    ErrorCodeOrNewer,
    ErrorTypeOrNewer,
    MethodOrNewer,
    Percent,
    Ratio,
    Seconds,
    Usd,
    UtcTime,
    WireModel,
    load_object,
    violations,
)

EVENT_SOURCE = "/klipstream/transcription-worker"
"""The same for all workers: together with `ce-id` it identifies an event, whichever worker sent it."""

Outcome = Literal["completed", "failed"]


class StoredArtefact(WireModel):
    """A stored object, durable before the event was published."""

    uri: str
    generation: int
    crc32c: str
    """Base64 of the big-endian checksum, in Cloud Storage's format."""
    bytes: Count


class Artefacts(WireModel):
    """Artefacts of a completed job; captions only if the job asked for them."""

    words: StoredArtefact
    paragraphs: StoredArtefact
    transcript: StoredArtefact
    srt: StoredArtefact | None = None
    vtt: StoredArtefact | None = None

    @property
    def uris(self) -> list[str]:
        """The address of each that was written."""
        every = (self.words, self.paragraphs, self.transcript, self.srt, self.vtt)
        return [artefact.uri for artefact in every if artefact is not None]


class Flags(WireModel):
    """Facts about the audio that explain an empty or short transcript."""

    no_speech: bool = False
    shorter_than_analysis_window: bool = False
    """Speech ends before 59 s."""
    truncated_audio: bool = False
    """Audio is missing or damaged; what is there is transcribed."""
    other_tracks: bool = False
    """The transcribed track is silent, and another audio track of the file is not."""


class Gaps(WireModel):
    """Stretches with speech for which Parakeet's first pass returned no words."""

    found: Count
    mended: Count
    """Those that have words now: of a second pass over these seconds, or of Deepgram."""
    left: Count


class TranscriptionMetadata(WireModel):
    """Facts about the transcription of a completed job."""

    method_requested: MethodOrNewer
    method_used: MethodOrNewer
    routing_reason: str
    model_name: str
    gpu_used: bool
    device_used: str | None
    """Null if only Deepgram took part."""
    fallback_used: bool
    fallback_reasons: dict[str, int]
    """Number of chunks by error code."""
    chunks_total: Count
    chunks_fallback: Count
    chunks_resumed: Count
    words_count: Count
    paragraphs_count: Count
    audio_duration_seconds: Seconds
    processing_time_seconds: Seconds
    queue_time_seconds: Seconds
    processing_speed_ratio: Ratio
    cost_estimate_usd: Usd
    deliveries: Count
    worker: str
    keyterms_found: tuple[str, ...] = ()
    """Those of the job's keyterms that occur in the transcript, whatever their case and punctuation."""
    keyterms_unspeakable: tuple[str, ...] = ()
    """Those of the job's keyterms that the model's vocabulary cannot spell: they had no effect."""
    gaps: Gaps | None = None


class PartialMetadata(WireModel):
    """Known facts about a failed job; null for steps that it did not reach."""

    method_requested: MethodOrNewer | None = None
    method_used: MethodOrNewer | None = None
    routing_reason: str | None = None
    model_name: str | None = None
    gpu_used: bool | None = None
    device_used: str | None = None
    fallback_used: bool | None = None
    fallback_reasons: dict[str, int] = Field(default_factory=dict)
    chunks_total: Count | None = None
    chunks_fallback: Count | None = None
    chunks_resumed: Count | None = None
    audio_duration_seconds: Seconds | None = None
    processing_time_seconds: Seconds | None = None
    queue_time_seconds: Seconds | None = None
    cost_estimate_usd: Usd | None = None
    deliveries: Count | None = None
    worker: str | None = None


class Failure(WireModel):
    """Reason why a job's run ended without artefacts."""

    error_type: ErrorTypeOrNewer
    error_code: ErrorCodeOrNewer
    error_message: str
    is_retryable: bool
    """True if a replay without any change may succeed."""
    suggested_action: str
    support_reference: str
    """The dead letter's id."""
    violations: tuple[str, ...] = ()


class ParakeetRates(WireModel):
    """Dollars per second of the instance that ran Parakeet, from the price book."""

    gpu_usd_per_second: float
    vcpu_usd_per_second: float
    gib_usd_per_second: float


class ParakeetCost(WireModel):
    """Parakeet's part of a job."""

    engine: Literal["parakeet"] = "parakeet"
    audio_seconds: Seconds
    gpu_seconds: Seconds
    """The job's share of the engine time of every pass that contained its windows."""
    usd: Usd
    rates: ParakeetRates


class DeepgramRates(WireModel):
    """Dollars per minute of audio."""

    usd_per_minute: float


class DeepgramCost(WireModel):
    """Deepgram's part of a job."""

    engine: Literal["deepgram"] = "deepgram"
    audio_seconds: Seconds
    requests: Count
    request_ids: tuple[str, ...]
    usd: Usd
    rates: DeepgramRates


class OtherEngineCost(WireModel):
    """An engine that this version of the schemas does not know."""

    engine: str
    audio_seconds: Seconds
    usd: Usd


EngineCost = Annotated[ParakeetCost | DeepgramCost | OtherEngineCost, Field(union_mode="left_to_right")]


class ChannelCost(WireModel):
    """Part of one channel, where channels were transcribed apart. Failed chunks are no channel's."""

    channel: Count
    """Counted from 0, as in the transcript."""
    audio_seconds: Seconds
    gpu_seconds: Seconds
    deepgram_seconds: Seconds
    """Audio that Deepgram bills."""
    usd: Usd


class Baseline(WireModel):
    """Cost of the same audio at Deepgram alone, the reference of the savings."""

    engine: str = "deepgram"
    usd: Usd


class _EventHead(WireModel):
    schema_version: int = 1
    event_id: str
    event_type: EventType
    occurred_at: UtcTime
    run: Count
    job: JobEcho


class CompletedEvent(_EventHead):
    """Event of a completed job: its artefacts are durable."""

    event_type: Literal[EventType.COMPLETED] = EventType.COMPLETED
    artefacts: Artefacts
    flags: Flags
    transcription_metadata: TranscriptionMetadata


class FailedEvent(_EventHead):
    """Event of a failed run: it ended without artefacts."""

    event_type: Literal[EventType.FAILED] = EventType.FAILED
    error: Failure
    transcription_metadata: PartialMetadata = PartialMetadata()


class CostEvent(_EventHead):
    """Cost of a run; published with every completed and failed event."""

    event_type: Literal[EventType.COST] = EventType.COST
    outcome: Outcome
    audio_seconds: Seconds
    price_book: str
    usd_total: Usd
    engines: tuple[EngineCost, ...]
    baseline: Baseline
    savings_usd: Usd
    savings_percent: Percent
    revision: str = ""
    """Revision of the deployment that did the job; empty if unknown."""
    rollout_group: str | None = None
    """parakeet: the video is in the rollout share that may use Parakeet; deepgram: it is not."""
    processing_time_seconds: Seconds | None = None
    chunks_total: Count | None = None
    chunks_fallback: Count | None = None
    channels: tuple[ChannelCost, ...] = ()
    """By channel, where channels were transcribed apart; otherwise empty."""


class ProgressEvent(_EventHead):
    """Progress of a running job."""

    event_type: Literal[EventType.PROGRESS] = EventType.PROGRESS
    chunks_done: Count
    chunks_total: Count | None
    """Null until known."""
    audio_seconds_done: Seconds
    method: MethodOrNewer
    eta_seconds: Seconds | None


Event = CompletedEvent | FailedEvent | CostEvent | ProgressEvent


_MODELS: dict[EventType, type[Event]] = {
    EventType.COMPLETED: CompletedEvent,
    EventType.FAILED: FailedEvent,
    EventType.COST: CostEvent,
    EventType.PROGRESS: ProgressEvent,
}
_STATUSES = {EventType.COMPLETED: "completed", EventType.FAILED: "failed", EventType.PROGRESS: "in_progress"}


class EventUnreadable(ValueError):
    """The message is not an event that this version knows; the text is the reason."""


def encode(event: Event) -> bytes:
    """Return the event as message data: JSON, including nulls."""
    return event.model_dump_json().encode()


def event_attributes(event: Event) -> dict[str, str]:
    """Return the event's message attributes: CloudEvents 1.0 in the Pub/Sub binding, and those for filters.

    `ce-subject` and `video_id` are left out if the failed message had no readable ids.
    """
    head = event.model_dump(mode="json", include={"event_type", "occurred_at"})
    attributes = {
        "ce-specversion": "1.0",
        "ce-id": event.event_id,
        "ce-type": head["event_type"],
        "ce-source": EVENT_SOURCE,
        "ce-time": head["occurred_at"],
        "ce-subject": event.job.job_id,
        "content-type": "application/json",
        "event_type": head["event_type"],
        "status": event.outcome if isinstance(event, CostEvent) else _STATUSES[event.event_type],
        "video_id": event.job.video_id,
        "run": str(event.run),
    }
    return {name: value for name, value in attributes.items() if value is not None}


def parse_event(data: bytes) -> Event:
    """Parse an event's message data. Raises `EventUnreadable`, also for event types newer than this version."""
    try:
        document = load_object(data)
    except ValueError as exc:
        raise EventUnreadable(f"not a JSON object: {exc}") from exc
    try:
        model = _MODELS[EventType(document.get("event_type"))]
    except ValueError as exc:
        raise EventUnreadable(f"not an event that this version knows: {exc}") from exc
    try:
        return model.model_validate_json(data)
    except ValidationError as exc:
        raise EventUnreadable("; ".join(violations(exc))) from exc
