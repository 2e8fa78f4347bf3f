"""A worker's `/health`, read: of this worker or of another, of this version or of a neighbouring one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Segment = Literal["parakeet", "deepgram", "working", "waiting", "failed"]
"""One chunk in a strip, in the order of the audio."""


def segment_of(engine: str) -> Segment:
    """Return the finished chunk's segment."""
    return "deepgram" if engine == "deepgram" else "parakeet"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Model(_Part):
    name: str
    device: str


class GpuFacts(_Part):
    """One GPU."""

    name: str
    memory_used_bytes: float
    memory_total_bytes: float
    utilisation: float | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None


class _Gpus(_Part):
    devices: tuple[GpuFacts, ...] = ()


class RunningFacts(_Part):
    """A job in progress."""

    job_id: str
    video_id: str
    method: str | None = None
    seconds: float
    audio_seconds: float | None
    audio_seconds_done: float
    chunks_done: int
    chunks_total: int | None = None
    chunks: tuple[str | None, ...] = ()
    chunks_in_work: tuple[int, ...] = ()
    deliveries: int | None = None
    queued_seconds: float = 0.0

    @property
    def segments(self) -> Sequence[Segment]:
        """One a chunk; chunks beyond the container's promise are appended when started."""
        count = max(len(self.chunks), max(self.chunks_in_work, default=-1) + 1)
        engines = [*self.chunks, *[None] * (count - len(self.chunks))]
        return [
            segment_of(engine) if engine else "working" if index in self.chunks_in_work else "waiting"
            for index, engine in enumerate(engines)
        ]

    @property
    def chunks_expected(self) -> int | None:
        """None before the length of the audio is known."""
        return None if self.chunks_total is None else max(self.chunks_total, len(self.segments))

    @property
    def chunks_by_deepgram(self) -> int:
        """Finished chunks."""
        return self.chunks.count("deepgram")

    @property
    def percent(self) -> int:
        """The share of the audio that is transcribed."""
        return min(100, int(100 * self.audio_seconds_done / self.audio_seconds)) if self.audio_seconds else 0

    @property
    def speed_ratio(self) -> float | None:
        """None before the first chunk is finished."""
        return self.audio_seconds_done / self.seconds if self.audio_seconds_done and self.seconds else None

    @property
    def eta_seconds(self) -> float | None:
        """None before the first chunk is finished."""
        if not self.audio_seconds or not self.speed_ratio:
            return None
        return max(0.0, self.audio_seconds - self.audio_seconds_done) / self.speed_ratio


class JobsFacts(_Part):
    """The jobs of the moment."""

    in_flight: int
    parked: int
    free_slots: int
    running: tuple[RunningFacts, ...] = ()

    @property
    def slots(self) -> int:
        """The jobs that may run at once; 0 before the worker takes messages."""
        return self.in_flight + self.free_slots


class EndedFacts(_Part):
    """A job that ended."""

    job_id: str | None
    code: str | None
    ended_at: datetime
    seconds: float
    speed_ratio: float | None
    video_id: str | None = None
    audio_seconds: float | None = None
    cost_usd: float | None = None
    baseline_usd: float | None = None
    chunks: tuple[str, ...] = ()

    @property
    def segments(self) -> Sequence[Segment]:
        """One a chunk."""
        return [segment_of(engine) for engine in self.chunks]


class Sums(_Part):
    """The sums since the worker started."""

    completed: int = 0
    failed: int = 0
    audio_seconds: float = 0.0
    processing_seconds: float = 0.0
    cost_usd: float = 0.0
    baseline_usd: float = 0.0
    chunks: int = 0
    chunks_fallback: int = 0

    @property
    def speed_ratio(self) -> float | None:
        """Audio by processing time; None before a job has completed."""
        return self.audio_seconds / self.processing_seconds if self.processing_seconds else None

    def __add__(self, other: "Sums") -> "Sums":
        return Sums.model_validate({name: value + getattr(other, name) for name, value in self})


class _PartTest(_Part):
    passed: bool | None
    reason: str = ""


class FuseFacts(_Part):
    """The fuse, which stops the intake after failures in a row."""

    state: str
    reason: str = ""


class DeepgramFacts(_Part):
    """The fallback."""

    configured: bool = False
    down_because: str = ""
    budget_spent: bool = False


class _Disk(_Part):
    path: str
    free_bytes: int
    total_bytes: int


class UrgentFacts(_Part):
    """The subscription of urgent jobs."""

    subscription: str
    backlog: int | None = None
    oldest_message_seconds: float | None = None
    pull_failure: str = ""


class HealthDocument(_Part):
    """Everything that the page, `health` and `top` show of one worker."""

    status: str
    reason: str
    worker: str
    subscription: str
    uptime_seconds: float
    jobs: JobsFacts
    model: _Model | None = None
    gpu: _Gpus = _Gpus()
    last_jobs: tuple[EndedFacts, ...] = ()
    totals: Sums = Sums()
    backlog: int | None = None
    oldest_message_seconds: float | None = None
    urgent: UrgentFacts | None = None
    disk: _Disk | None = None
    fuse: FuseFacts | None = None
    deepgram: DeepgramFacts = DeepgramFacts()
    gpu_memory_limit_gb: float = 0.0
    self_test: Mapping[str, _PartTest] = Field(default_factory=dict)
    versions: Mapping[str, str] = Field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SeenWorker:
    """A health port and its document, or None and the `problem`."""

    url: str
    health: HealthDocument | None
    problem: str = ""
    is_starting: bool = False
    """It is not expected to answer yet."""


def read_health(document: Any) -> HealthDocument | None:
    """Return the document; None for anything that is not a worker's."""
    try:
        return HealthDocument.model_validate(document)
    except ValidationError:
        return None
