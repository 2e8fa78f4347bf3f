"""Closed sets of the contract: error codes, methods, event types, error types, artefacts."""

from enum import Enum

from schemas.uris import GcsUri


class _Word(str, Enum):
    """String enum whose members print as their value on every Python; plain `(str, Enum)` differs by version."""

    __str__ = str.__str__


class ErrorCode(_Word):
    """Stable code of a failure; part of the contract, so a member is never renamed or removed."""

    INVALID_JOB = "INVALID_JOB"
    UNSUPPORTED_SCHEMA_VERSION = "UNSUPPORTED_SCHEMA_VERSION"
    JOB_ID_CONFLICT = "JOB_ID_CONFLICT"
    AUDIO_NOT_FOUND = "AUDIO_NOT_FOUND"
    AUDIO_FORBIDDEN = "AUDIO_FORBIDDEN"
    AUDIO_TOO_LARGE = "AUDIO_TOO_LARGE"
    AUDIO_TOO_LONG = "AUDIO_TOO_LONG"
    AUDIO_UNDECODABLE = "AUDIO_UNDECODABLE"
    STORAGE_SERVICE_ERROR = "STORAGE_SERVICE_ERROR"
    GPU_NOT_AVAILABLE = "GPU_NOT_AVAILABLE"
    GPU_MEMORY_ERROR = "GPU_MEMORY_ERROR"
    MODEL_LOADING_ERROR = "MODEL_LOADING_ERROR"
    TRANSCRIPTION_TIMEOUT = "TRANSCRIPTION_TIMEOUT"
    TRANSCRIPTION_SERVICE_ERROR = "TRANSCRIPTION_SERVICE_ERROR"
    DEEPGRAM_QUOTA_ERROR = "DEEPGRAM_QUOTA_ERROR"
    DEEPGRAM_AUTH_ERROR = "DEEPGRAM_AUTH_ERROR"
    FALLBACK_BUDGET_EXHAUSTED = "FALLBACK_BUDGET_EXHAUSTED"
    TRANSCRIPTION_FALLBACK_FAILED = "TRANSCRIPTION_FALLBACK_FAILED"
    ATTEMPTS_EXHAUSTED = "ATTEMPTS_EXHAUSTED"
    EXPIRED = "EXPIRED"
    INTERNAL_ERROR = "INTERNAL_ERROR"
    WORKER_UNFIT = "WORKER_UNFIT"
    """Never the end of a job: only logged, and shown by the health port, while a worker cannot work."""


class Channels(_Word):
    """Treatment of a job's audio channels: their mix is transcribed, or each apart."""

    MIX = "mix"
    APART = "apart"


class Method(_Word):
    """Method of transcription, requested or used."""

    AUTO = "auto"
    PARAKEET = "parakeet"
    DEEPGRAM = "deepgram"
    HYBRID = "hybrid"


class EventType(_Word):
    """Type of an event on the completion topic."""

    COMPLETED = "transcription.completed"
    FAILED = "transcription.failed"
    COST = "transcription.cost"
    PROGRESS = "transcription.progress"


class ErrorType(_Word):
    """Permanence of a failure: `permanent` means that no later attempt at the same job could have succeeded."""

    PERMANENT = "permanent"
    TRANSIENT = "transient"


class CaptionFormat(_Word):
    """Optional artefact, besides the three that are always written."""

    SRT = "srt"
    VTT = "vtt"


class Artefact(str, Enum):
    """A file of a completed job; the value is the part of its name after `audio_{video_id}`."""

    WORDS = "_words.csv"
    PARAGRAPHS = "_paragraphs.csv"
    TRANSCRIPT = "_transcript.json"
    SRT = ".srt"
    VTT = ".vtt"

    def file_name(self, video_id: str) -> str:
        """Return the artefact's name within the output prefix."""
        return f"audio_{video_id}{self.value}"

    def uri(self, prefix: GcsUri, video_id: str) -> GcsUri:
        """Return the artefact's address below an output prefix."""
        return prefix.child(self.file_name(video_id))

    @property
    def content_type(self) -> str:
        """Media type of the stored object."""
        return _CONTENT_TYPES[self]


_CONTENT_TYPES = {
    Artefact.WORDS: "text/csv; charset=utf-8",
    Artefact.PARAGRAPHS: "text/csv; charset=utf-8",
    Artefact.TRANSCRIPT: "application/json",
    Artefact.SRT: "application/x-subrip; charset=utf-8",
    Artefact.VTT: "text/vtt; charset=utf-8",
}
