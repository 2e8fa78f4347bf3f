"""What a job leaves in the state bucket: its claim, the checkpoints of its chunks, its result marker.

Written and read by workers only, of this version and of neighbouring ones during a roll-out: fields are added with a
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
    """The cost of chunks that failed; part of the job's bill."""

    engine_seconds: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    deepgram_requests: int = Field(default=0, ge=0)
    """Requests that Deepgram may bill."""
    deepgram_seconds: float = Field(default=0.0, ge=0, allow_inf_nan=False)
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


class ClaimRecord(_State):
    """Who works on a job, and how often that went wrong; one object, changed by compare-and-swap only.

    `claim_id` and `beat` make every write differ from every other, so that a writer recognises its own.
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
    """A verdict or a new checkpoint came out of this claim: its death is not a crash of the job."""
    failures: int = 0
    crashes: int = 0
    last_fault: str = ""
    """How the job broke its worker the last time that was counted as a crash."""
    deliveries: int = 0
    waste: Waste = NO_WASTE
    """The cost of this run's failed attempts, on any worker."""
    first_seen: datetime
    heartbeat_at: datetime
    """For people; staleness is judged by the reader's own clock."""


class Checkpoint(_State):
    """What one chunk came to: all that a resumed job needs of it."""

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
    """Requests for this chunk that Deepgram may bill too although they brought no transcript."""


class StoredMessage(_State):
    """A message exactly as it was published."""

    topic: Literal["completion", "dead_letter"]
    data: str
    """JSON text; published as UTF-8."""
    attributes: dict[str, str]


class ResultMarker(_State):
    """A job's run is over, and these messages said so; a redelivery publishes them again byte for byte."""

    schema_version: Literal[1] = 1
    job_id: str
    fingerprint: str
    run: int = Field(ge=0)
    outcome: Literal["completed", "failed"]
    code: ErrorCode | None = None
    messages: tuple[StoredMessage, ...]
    earlier_costs: tuple[StoredMessage, ...] = ()
    """Cost events of completed runs whose artefacts were gone, so that the job was done again. For reports alone."""
    concluded_at: datetime

    def settles(self, run: int) -> bool:
        """No work is left for that run: a completed job stays completed, a failure stands for runs up to its own."""
        return self.outcome == "completed" or self.run >= run


class BudgetLedger(_State):
    """How many Deepgram dollars the pool has reserved on one UTC day."""

    schema_version: Literal[1] = 1
    day: date
    reserved_usd: float = Field(ge=0, allow_inf_nan=False)
    written_by: str
    """Of this write alone."""
