"""The phases of one attempt at a job, each a value that holds everything known from that point of the recipe on.

    Received -> Understood -> Claimed -> Routed -> Transcribing -> Ended

Each phase is the one before it with more, so that a failure reports what the last phase knew, and a completed job is
reported from the last phase alone.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from schemas.codes import Method
from schemas.events import Gaps
from schemas.job import TranscriptionJob
from schemas.state import NO_WASTE, Checkpoint, Waste
from worker.core.costs.bill import Cost
from worker.core.jobs.routing import Route
from worker.core.jobs.transcription import Progress
from worker.core.transcript.spelling import with_sound
from worker.ports import EngineFacts

UNNAMED_DEEPGRAM_MODEL = "deepgram"
"""The model of chunks that another worker paid for, on a worker without a key, which names no model."""


@dataclass(frozen=True, kw_only=True)
class Spent:
    """The finished chunks of a job's run, and the cost of those that failed."""

    chunks: tuple[Checkpoint, ...] = ()
    audio_seconds: float | None = None
    """The decoded audio, each channel that is transcribed apart; None before any is known of."""
    waste: Waste = NO_WASTE
    """The cost of this run's failed chunks, in earlier attempts too."""

    @property
    def duration_seconds(self) -> float | None:
        """The length of the audio that was decoded: of the longest channel, where channels are apart."""
        lengths = defaultdict[int, float](float)
        for channel, _, seconds in {(chunk.channel, chunk.index, chunk.audio_seconds) for chunk in self.chunks}:
            lengths[channel] += seconds
        return max(lengths.values()) if len(lengths) > 1 else self.audio_seconds

    @property
    def fallback_reasons(self) -> dict[str, int]:
        """The error codes because of which chunks went to Deepgram, each with the count of its chunks."""
        counts = Counter(chunk.fallback_reason.value for chunk in self.chunks if chunk.fallback_reason)
        return dict(sorted(counts.items()))

    @property
    def chunks_fallback(self) -> int:
        """The count of chunks that Deepgram did because Parakeet could not."""
        return sum(1 for chunk in self.chunks if chunk.fallback_reason)

    @property
    def gaps(self) -> Gaps:
        """The holes of all chunks."""
        results = [chunk.gaps for chunk in self.chunks]
        found, left = sum(one.found for one in results), sum(one.left for one in results)
        return Gaps(found=found, mended=found - left, left=left)


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """The arrival of a message at this worker."""

    worker: str
    started_at: datetime
    """By the wall clock, which may be set back: for times that people read, never for durations."""
    began: float
    """The same moment on the monotonic clock, in seconds."""
    queued_seconds: float


@dataclass(frozen=True, kw_only=True)
class Received:
    """The first phase: a message is here, unread or not a job."""

    receipt: Arrival

    @property
    def language(self) -> str | None:
        """The job's language, which decides Deepgram's price; None until there is a job."""
        return None

    @property
    def spent(self) -> Spent:
        """The chunks of this attempt so far."""
        return Spent()

    @property
    def keyterms(self) -> tuple[str, ...]:
        """The job's keyterms that engines get, which add to Deepgram's price."""
        return ()

    def method_used(self, chunks: Iterable[Checkpoint]) -> Method | None:
        """Return the method by the engines of the chunks; None where there are no chunks and no route."""
        return _method_of(chunks)

    def model_name(self, chunks: Iterable[Checkpoint]) -> str | None:  # noqa: ARG002 - of a later phase
        """Return the model of the transcript, Parakeet's where both engines took part; None before any engine began."""
        return None

    def device(self, chunks: Iterable[Checkpoint]) -> EngineFacts | None:  # noqa: ARG002 - of a later phase
        """Return the engine of this worker that did a chunk; None where it did no chunk."""
        return None

    def understood(self, job: TranscriptionJob) -> "Understood":
        """Return the next phase."""
        return Understood(receipt=self.receipt, job=job)


@dataclass(frozen=True, kw_only=True)
class Understood(Received):
    """The message has been read as a job."""

    job: TranscriptionJob

    @property
    def language(self) -> str:
        """The job's language, which decides Deepgram's price."""
        return self.job.language

    @property
    def keyterms(self) -> tuple[str, ...]:
        """The job's keyterms that engines get, which add to Deepgram's price."""
        return with_sound(self.job.keyterms)

    def claimed(self, *, deliveries: int, waste: Waste) -> "Claimed":
        """Return the next phase. A job that waited without its claim begins here again."""
        return Claimed(receipt=self.receipt, job=self.job, deliveries=deliveries, waste=waste)


@dataclass(frozen=True, kw_only=True)
class Claimed(Understood):
    """This worker alone has the job."""

    deliveries: int
    waste: Waste

    @property
    def spent(self) -> Spent:
        """The cost of earlier attempts."""
        return Spent(waste=self.waste)

    def routed(
        self, route: Route, *, expected_seconds: float | None, chunk_seconds: float, channels: int = 1
    ) -> "Routed":
        """Return the next phase. `expected_seconds` is the duration that the container states."""
        return Routed(
            **vars(self),
            route=route,
            expected_seconds=expected_seconds and expected_seconds * channels,
            chunk_seconds=chunk_seconds,
            channels=channels,
        )


@dataclass(frozen=True, kw_only=True)
class Routed(Claimed):
    """The audio is on this machine, and its engine has been chosen."""

    route: Route
    expected_seconds: float | None
    """The duration that the container states, times the channels; `Spent.audio_seconds` is what was decoded."""
    chunk_seconds: float
    """The length that chunks are cut to."""
    channels: int = 1
    """Channels that are transcribed apart; 1 for a mix."""

    def method_used(self, chunks: Iterable[Checkpoint]) -> Method:
        """Return the method by the engines of the chunks, or by the route where there are none."""
        return _method_of(chunks) or Method(self.route.method)

    @property
    def chunks_expected(self) -> int | None:
        """The count of chunks by the container's duration; None where the container states none."""
        if not self.expected_seconds:
            return None
        return math.ceil(self.expected_seconds / self.channels / self.chunk_seconds) * self.channels

    def transcribing(self, engine: EngineFacts, *, paid_model: str | None) -> "Transcribing":
        """Return the next phase."""
        return Transcribing(**vars(self), engine=engine, paid_model=paid_model)


@dataclass(frozen=True, kw_only=True)
class Transcribing(Routed):
    """The engines have begun. `finished` is None while they work, and afterwards the chunks they finished."""

    engine: EngineFacts
    paid_model: str | None
    """None on a worker without a key."""
    progress: Progress | None = None
    finished: tuple[Checkpoint, ...] | None = None
    chunks_resumed: int = 0

    @property
    def spent(self) -> Spent:
        """The chunks that this attempt finished, and the cost of earlier attempts."""
        if self.finished is None:
            return super().spent
        seconds = sum((chunk.audio_seconds for chunk in self.finished), 0.0)
        return Spent(chunks=self.finished, audio_seconds=seconds, waste=self.waste)

    def model_name(self, chunks: Iterable[Checkpoint]) -> str:
        """Return the model of the transcript, Parakeet's where both engines took part."""
        if self.method_used(chunks) is Method.DEEPGRAM:
            return self.paid_model or UNNAMED_DEEPGRAM_MODEL
        return self.engine.model_name

    def device(self, chunks: Iterable[Checkpoint]) -> EngineFacts | None:
        """Return the engine of this worker; None where it did no chunk."""
        return self.engine if any(chunk.engine == "parakeet" for chunk in chunks) else None


PhaseT_co = TypeVar("PhaseT_co", bound=Received, covariant=True)


@dataclass(frozen=True, kw_only=True)
class Ended(Generic[PhaseT_co]):
    """The end of an attempt: the last phase it reached, its chunks, its processing time and its bill."""

    phase: PhaseT_co
    spent: Spent
    seconds: float
    """By the monotonic clock."""
    cost: Cost


def _method_of(chunks: Iterable[Checkpoint]) -> Method | None:
    engines = {chunk.engine for chunk in chunks}
    if len(engines) > 1:
        return Method.HYBRID
    return Method(engines.pop()) if engines else None
