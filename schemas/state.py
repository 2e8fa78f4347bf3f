"""Objects of a job in the state bucket: its claim, the checkpoints of its chunks, its result marker.

Written and read by workers only, of this version and of adjacent ones during a roll-out: fields are added with a
default, never renamed. Every object is far below 8 MiB.
"""

from datetime import date, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.codes import ErrorCode
from schemas.speech import WindowTranscript


class _State(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Waste(_State):
    """Cost of failed chunks; part of the job's bill."""

    engine_seconds: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    deepgram_requests: int = Field(default=0, ge=0)
    """Number of requests that Deepgram may bill."""
    deepgram_seconds: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Audio seconds of these requests."""

    def __add__(self, other: "Waste") -> "Waste":
        return Waste(
            engine_seconds=self.engine_seconds + other.engine_seconds,
            deepgram_requests=self.deepgram_requests + other.deepgram_requests,
            deepgram_seconds=self.deepgram_seconds + other.deepgram_seconds,
        )

    def __bool__(self) -> bool:
        return self != NO_WASTE


NO_WASTE = Waste()


class AttemptFault(_State):
    """The reason why an attempt failed, or a crash was counted. For people only."""

    at: datetime
    reason: str


class ClaimRecord(_State):
    """Owner of a job and the run's counters; one object, changed by compare-and-swap only.

    `claim_id` and `beat` make every write unique, so that a writer recognises its own.
    """

    schema_version: Literal[1] = 1
    job_id: str
    fingerprint: str
    run: int = Field(ge=0)
    owner: str
    claim_id: str
    beat: int = 0
    held: bool
    progressed: bool = False
    """True once this claim produced a verdict or a new checkpoint: its end is then not a crash of the job."""
    failures: int = 0
    crashes: int = 0
    last_fault: str = ""
    """Fault of the worker that was last counted as a crash of this job."""
    faults: tuple[AttemptFault, ...] = ()
    """The newest ten failed attempts and crashes of this run."""
    deliveries: int = 0
    waste: Waste = NO_WASTE
    """Cost of this run's failed attempts, on all workers."""
    ttl_seconds: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """CLAIM_TTL_SECONDS of the owner, for readers whose own is shorter; 0 of older workers."""
    first_seen: datetime
    heartbeat_at: datetime
    """For people only; staleness is measured by the reader's own clock."""


class GapResult(_State):
    """Holes of a chunk: stretches with speech for which the first pass returned no words."""

    found: int = Field(default=0, ge=0)
    mended: int = Field(default=0, ge=0)
    left: int = Field(default=0, ge=0)
    deepgram_requests: int = Field(default=0, ge=0)
    """Number of requests for holes that Deepgram may bill."""
    deepgram_seconds: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Billed audio seconds of these requests."""
    deepgram_request_ids: tuple[str, ...] = ()
    deepgram_spans: tuple[tuple[int, int], ...] = ()
    """Samples of the file, first and one past the last, of the holes whose words are Deepgram's."""

    def billed(self, *, requests: int, seconds: float, request_id: str = "") -> "GapResult":
        """Return the result with more requests."""
        return self.model_copy(
            update={
                "deepgram_requests": self.deepgram_requests + requests,
                "deepgram_seconds": self.deepgram_seconds + seconds,
                "deepgram_request_ids": self.deepgram_request_ids + ((request_id,) if request_id else ()),
            }
        )

    def filled_by_deepgram(self, start_sample: int, end_sample: int) -> "GapResult":
        """Return the result with a hole whose words are Deepgram's."""
        return self.model_copy(update={"deepgram_spans": (*self.deepgram_spans, (start_sample, end_sample))})

    def with_left(self, most: int) -> "GapResult":
        """Return the result with at most that many holes left."""
        left = min(self.left, most)
        return self.model_copy(update={"left": left, "mended": self.found - left})


class Checkpoint(_State):
    """Result of one chunk: everything that a resumed job needs."""

    schema_version: Literal[1] = 1
    index: int = Field(ge=0)
    start_sample: int = Field(ge=0)
    end_sample: int = Field(ge=0)
    engine: Literal["parakeet", "deepgram"]
    windows: tuple[WindowTranscript, ...]
    engine_seconds: float
    audio_seconds: float
    fallback_reason: ErrorCode | None = None
    deepgram_request_id: str | None = None
    deepgram_billed_seconds: float = 0.0
    deepgram_wasted_requests: int = 0
    """Number of requests for this chunk that Deepgram may bill although they returned no transcript."""
    channel: int = Field(default=0, ge=0)
    """Channel of the audio, where channels are transcribed apart."""
    gaps: GapResult = GapResult()

    def without_windows(self) -> "Checkpoint":
        """Return the checkpoint without its words, which over hours of audio would be much to hold."""
        return self.model_copy(update={"windows": ()})


class StoredMessage(_State):
    """A published message, exactly as it was published."""

    topic: Literal["completion", "dead_letter"]
    data: str
    """JSON text; published as UTF-8."""
    attributes: dict[str, str]


class ResultMarker(_State):
    """End of a job's run, with its messages; a redelivery publishes them again byte for byte."""

    schema_version: Literal[1] = 1
    job_id: str
    fingerprint: str
    run: int = Field(ge=0)
    outcome: Literal["completed", "failed"]
    code: ErrorCode | None = None
    messages: tuple[StoredMessage, ...]
    faults: tuple[AttemptFault, ...] = ()
    """Failed attempts and crashes before the end, from the claim, which is gone. For people only."""
    engines: tuple[Literal["parakeet", "deepgram"], ...] = ()
    """Engine of each chunk of a completed job, in the order of the audio; its checkpoints are gone. For people only."""
    earlier_costs: tuple[StoredMessage, ...] = ()
    """Cost events of earlier completed runs that were repeated because their artefacts were gone. For reports only."""
    concluded_at: datetime

    def settles(self, run: int) -> bool:
        """Return True if the run needs no work: the job is completed, or failed in this run or a later one."""
        return self.outcome == "completed" or self.run >= run


class BudgetLedger(_State):
    """Deepgram dollars that the pool has reserved on one UTC day."""

    schema_version: Literal[1] = 1
    day: date
    reserved_usd: float = Field(ge=0, allow_inf_nan=False)
    written_by: str
    """Unique id of this write."""
