"""Objects of a job in the state bucket: its claim, the checkpoints of its chunks, its result marker.

Workers of adjacent versions read them during a roll-out: fields are added with a default, never renamed. Every object
is far below 8 MiB.
"""

from datetime import date, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.codes import ErrorCode
from schemas.speech import WindowTranscript
from schemas.wire import Count

Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Engine = Literal["parakeet", "deepgram"]


class _State(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Waste(_State):
    """Cost of failed chunks; part of the job's bill."""

    engine_seconds: Amount = 0.0
    deepgram_requests: Count = 0
    """Requests that Deepgram may bill."""
    deepgram_seconds: Amount = 0.0
    """Their audio."""

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
    """Owner of a job and the run's counters; changed by compare-and-swap only.

    `claim_id` and `beat` make every write unique, so that a writer recognises its own.
    """

    schema_version: Literal[1] = 1
    job_id: str
    fingerprint: str
    run: Count
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
    ttl_seconds: Amount = 0.0
    """CLAIM_TTL_SECONDS of the owner, for readers whose own is shorter; 0 of older workers."""
    first_seen: datetime
    heartbeat_at: datetime
    """For people only; staleness is measured by the reader's own clock."""


class GapResult(_State):
    """Holes of a chunk, see `Gaps`, and what Deepgram did about them."""

    found: Count = 0
    mended: Count = 0
    left: Count = 0
    deepgram_requests: Count = 0
    """Requests for holes that Deepgram may bill."""
    deepgram_seconds: Amount = 0.0
    """Their billed audio."""
    deepgram_request_ids: tuple[str, ...] = ()
    deepgram_spans: tuple[tuple[int, int], ...] = ()
    """Samples of the file, first and one past the last, of the holes whose words are Deepgram's."""

    def billed(self, *, requests: int, seconds: float, request_id: str = "") -> "GapResult":
        """Return the result with more requests."""
        more = {
            "deepgram_requests": self.deepgram_requests + requests,
            "deepgram_seconds": self.deepgram_seconds + seconds,
            "deepgram_request_ids": self.deepgram_request_ids + ((request_id,) if request_id else ()),
        }
        return self.model_copy(update=more)

    def filled_by_deepgram(self, start_sample: int, end_sample: int) -> "GapResult":
        """Return the result with a hole whose words are Deepgram's."""
        return self.model_copy(update={"deepgram_spans": (*self.deepgram_spans, (start_sample, end_sample))})

    def with_left(self, most: int) -> "GapResult":
        """Return the result with at most that many holes left."""
        left = min(self.left, most)
        return self.model_copy(update={"left": left, "mended": self.found - left})


class Checkpoint(_State):
    """Result of one chunk, for a resumed job."""

    schema_version: Literal[1] = 1
    index: Count
    start_sample: Count
    end_sample: Count
    engine: Engine
    windows: tuple[WindowTranscript, ...]
    engine_seconds: float
    audio_seconds: float
    fallback_reason: ErrorCode | None = None
    deepgram_request_id: str | None = None
    deepgram_billed_seconds: float = 0.0
    deepgram_wasted_requests: int = 0
    """Requests that Deepgram may bill although they returned no transcript."""
    channel: Count = 0
    """Channel of the audio, where channels are transcribed apart."""
    gaps: GapResult = GapResult()

    def without_windows(self) -> "Checkpoint":
        """Return the checkpoint without its words, which would be much to hold."""
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
    run: Count
    outcome: Literal["completed", "failed"]
    code: ErrorCode | None = None
    messages: tuple[StoredMessage, ...]
    faults: tuple[AttemptFault, ...] = ()
    """Those of the claim, which is gone. For people only."""
    engines: tuple[Engine, ...] = ()
    """Engine of each chunk of a completed job, in the order of the audio. For people only."""
    earlier_costs: tuple[StoredMessage, ...] = ()
    """Cost events of completed runs that were repeated because their artefacts were gone. For reports only."""
    concluded_at: datetime

    def settles(self, run: int) -> bool:
        """Return True if the run needs no work: the job is completed, or failed in this run or a later one."""
        return self.outcome == "completed" or self.run >= run


class BudgetLedger(_State):
    """Deepgram dollars that the pool has reserved on one UTC day."""

    schema_version: Literal[1] = 1
    day: date
    reserved_usd: Amount
    written_by: str
    """Unique id of this write."""
