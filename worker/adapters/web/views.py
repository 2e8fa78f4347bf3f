"""The data of the pages: made by `worker.app.page`, rendered by the templates."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

from worker.adapters.web.health_document import RunningFacts, SeenWorker, Segment


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A fault that needs a person."""

    title: str
    text: str = ""
    remedy: str = ""
    command: str = ""


@dataclass(frozen=True, kw_only=True)
class EndedRow:
    """A job that ended; `code` is None for a completed one."""

    job_id: str | None
    video_id: str | None
    code: str | None
    note: str
    audio_seconds: float | None
    seconds: float | None
    speed_ratio: float | None
    segments: Sequence[Segment]
    chunks: int | None
    chunks_by_deepgram: int | None
    cost_usd: float | None
    baseline_usd: float | None
    ended_at: datetime

    @property
    def saved_percent(self) -> float | None:
        """Against Deepgram alone; None where there is nothing to compare with."""
        if not self.baseline_usd or self.cost_usd is None:
            return None
        return 100 * (1 - self.cost_usd / self.baseline_usd)


@dataclass(frozen=True, kw_only=True)
class FailureGroup:
    """The failed jobs of one error code."""

    code: str
    message: str
    remedy: str
    command: str
    is_retryable: bool
    jobs: Sequence[tuple[str | None, datetime]]
    """Job id and time of each, the newest first."""


@dataclass(frozen=True, kw_only=True)
class CostDay:
    """The spending of one UTC day."""

    day: date
    audio_hours: float
    parakeet_usd: float
    deepgram_usd: float
    usd: float
    baseline_usd: float

    @property
    def saved_percent(self) -> float | None:
        """Against Deepgram alone; None for a day without audio."""
        return 100 * (1 - self.usd / self.baseline_usd) if self.baseline_usd else None


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The numbers at the top; None where a number is not known."""

    backlog: int | None = None
    oldest_message_seconds: float | None = None
    running: int = 0
    slots: int = 0
    parked: int = 0
    speed_ratio: float | None = None
    jobs: int = 0
    failed: int = 0
    audio_hours: float = 0.0
    usd: float = 0.0
    baseline_usd: float = 0.0
    chunks: int = 0
    chunks_fallback: int = 0
    period: str = "since the start"

    @property
    def saved_percent(self) -> float | None:
        """Against Deepgram alone."""
        return 100 * (1 - self.usd / self.baseline_usd) if self.baseline_usd else None

    @property
    def fallback_percent(self) -> float | None:
        """The share of chunks that fell back to Deepgram."""
        return 100 * self.chunks_fallback / self.chunks if self.chunks else None


@dataclass(frozen=True, kw_only=True)
class Overview:
    """The first page."""

    headline: str
    lede: str
    seen_at: datetime
    problems: Sequence[Problem] = ()
    figures: Figures = Figures()
    workers: Sequence[SeenWorker] = ()
    place: str = ""
    """The subscription, for the heading of the workers."""
    running: Sequence[tuple[str, RunningFacts]] = ()
    """Each job with the name of its worker."""
    recent: Sequence[EndedRow] = ()
    failures: Sequence[FailureGroup] | None = None
    """None if unknown: without the state bucket."""
    costs: Sequence[CostDay] | None = None
    """By day, the oldest first; None if unknown."""
    bucket_problem: str = ""

    @property
    def is_empty(self) -> bool:
        """No job runs, and none is known to have ended."""
        return not self.running and not self.recent and not self.failures


@dataclass(frozen=True, kw_only=True)
class StoryStep:
    """One step of a job, in the order of time."""

    at: datetime | None
    title: str
    text: str = ""
    seconds: float | None = None
    is_trouble: bool = False


@dataclass(frozen=True, kw_only=True)
class CostLine:
    """One engine's share of a bill."""

    engine: str
    usd: float
    text: str


@dataclass(frozen=True, kw_only=True)
class SpokenWord:
    """One word of a transcript."""

    text: str
    start_seconds: float
    confidence: float


@dataclass(frozen=True, kw_only=True)
class SpokenParagraph:
    """The words between two pauses."""

    start_seconds: float
    words: Sequence[SpokenWord]
    channel: int | None = None
    """Counted from 1; None in a transcript of one channel."""


@dataclass(frozen=True, kw_only=True)
class Transcript:
    """A transcript with its words; `audio_src` is empty where the audio is not at hand."""

    paragraphs: Sequence[SpokenParagraph]
    duration_seconds: float
    audio_src: str = ""
    segments: Sequence[Segment] = ()

    @property
    def words_count(self) -> int:
        """All paragraphs together."""
        return sum(len(paragraph.words) for paragraph in self.paragraphs)


@dataclass(frozen=True, kw_only=True)
class JobStory:
    """One job's page."""

    job_id: str
    video_id: str
    status: Literal["running", "completed", "failed", "waiting"]
    lede: str
    problem: Problem | None = None
    chips: Sequence[str] = ()
    segments: Sequence[Segment] = ()
    steps: Sequence[StoryStep] = ()
    costs: Sequence[CostLine] = ()
    usd: float | None = None
    baseline_usd: float | None = None
    facts: Sequence[tuple[str, str]] = ()
    artefacts: Sequence[tuple[str, str, int]] = ()
    """Name, address and bytes of each."""
    transcript: Transcript | None = None
    beginning: str = ""
    """The first words, where the transcript is not shown whole."""

    @property
    def is_concluded(self) -> bool:
        """The page will not change by itself; a failed job may be replayed."""
        return self.status == "completed"
