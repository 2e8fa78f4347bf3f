"""Running and ended jobs of this worker since its start, for health, `top` and the metrics."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from schemas.codes import ErrorCode
from worker.core.jobs.phases import Claimed, Ended, Received, Routed, Transcribing, Understood
from worker.telemetry.register import (
    BASELINE_USD,
    COST_USD,
    DEAD_LETTERS,
    JOB_AUDIO_SECONDS,
    JOB_SECONDS,
    JOBS,
    QUEUE_SECONDS,
    SPEED_RATIO,
)

KEPT_JOBS = 20
"""The ended jobs that the health document lists."""


@dataclass(frozen=True, kw_only=True)
class RunningJob:
    """A running job; fields are None until they are known."""

    job_id: str
    video_id: str
    method: str | None
    seconds: float
    audio_seconds: float | None
    audio_seconds_done: float
    chunks_done: int
    chunks_total: int | None = None
    """Estimated from the container's duration until the whole file is decoded."""
    chunks: tuple[str | None, ...] = ()
    """The engine of each finished chunk, in the order of the audio; None of a chunk that is not finished."""
    chunks_in_work: tuple[int, ...] = ()
    """The indices of the chunks that are being transcribed."""
    deliveries: int | None = None
    queued_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class EndedJob:
    """A job that ended here; `code` is None for a completed one."""

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
    """The engine of each chunk, in the order of the audio; of a failed job those of the finished chunks."""


@dataclass(kw_only=True)
class Totals:
    """Sums since the worker started."""

    completed: int = 0
    failed: int = 0
    audio_seconds: float = 0.0
    processing_seconds: float = 0.0
    cost_usd: float = 0.0
    baseline_usd: float = 0.0
    chunks: int = 0
    chunks_fallback: int = 0


@dataclass(kw_only=True)
class Board:
    """Belongs to one event loop."""

    totals: Totals = field(default_factory=Totals)
    ended: deque[EndedJob] = field(default_factory=lambda: deque(maxlen=KEPT_JOBS))
    """The newest last."""
    _phases: dict[int, Callable[[], Received]] = field(default_factory=dict)
    """The phases that the attempts have reached by now."""

    @contextmanager
    def showing(self, phase: Callable[[], Received]) -> Iterator[None]:
        """Show an attempt for the length of the block; `phase` returns the phase that it has reached."""
        self._phases[id(phase)] = phase
        try:
            yield
        finally:
            del self._phases[id(phase)]

    def running(self, now: float) -> tuple[RunningJob, ...]:
        """Return the jobs of the moment, the oldest first; `now` is the monotonic clock's."""
        reached = (phase() for phase in self._phases.values())
        return tuple(_running(phase, now) for phase in reached if isinstance(phase, Understood))

    def completed(self, job_id: str, ended: Ended[Transcribing], now: datetime) -> None:
        """Count a job whose result marker is stored."""
        seconds, audio_seconds = ended.seconds, ended.spent.audio_seconds or 0.0
        speed = audio_seconds / seconds if seconds else 0.0
        self.ended.append(_ended(job_id, ended, code=None, now=now, speed_ratio=speed))
        self.totals.completed += 1
        self.totals.audio_seconds += audio_seconds
        self.totals.processing_seconds += seconds
        self._count(ended)
        JOBS.add(outcome="completed")
        JOB_SECONDS.record(seconds)
        QUEUE_SECONDS.record(ended.phase.receipt.queued_seconds)
        JOB_AUDIO_SECONDS.add(audio_seconds)
        SPEED_RATIO.record(speed)

    def failed(self, job_id: str | None, ended: Ended[Received], code: ErrorCode, now: datetime) -> None:
        """Count a message that was given up on."""
        self.ended.append(_ended(job_id, ended, code=code.value, now=now, speed_ratio=None))
        self.totals.failed += 1
        self._count(ended)
        JOBS.add(outcome="failed")
        DEAD_LETTERS.add(code=code)

    def _count(self, ended: Ended[Received]) -> None:
        cost = ended.cost
        self.totals.chunks += len(ended.spent.chunks)
        self.totals.chunks_fallback += ended.spent.chunks_fallback
        self.totals.cost_usd += cost.usd
        self.totals.baseline_usd += cost.baseline.usd
        BASELINE_USD.add(cost.baseline.usd)
        for engine in cost.engines:
            COST_USD.add(engine.usd, engine=engine.engine)


def _ended(
    job_id: str | None, ended: Ended[Received], *, code: str | None, now: datetime, speed_ratio: float | None
) -> EndedJob:
    phase, cost = ended.phase, ended.cost
    return EndedJob(
        job_id=job_id,
        video_id=phase.job.video_id if isinstance(phase, Understood) else None,
        code=code,
        ended_at=now,
        seconds=ended.seconds,
        speed_ratio=speed_ratio,
        audio_seconds=ended.spent.audio_seconds,
        cost_usd=cost.usd,
        baseline_usd=cost.baseline.usd,
        chunks=tuple(chunk.engine for chunk in sorted(ended.spent.chunks, key=lambda chunk: chunk.index)),
    )


def _running(phase: Understood, now: float) -> RunningJob:
    routed = phase if isinstance(phase, Routed) else None
    progress = phase.progress if isinstance(phase, Transcribing) else None
    total = progress.chunks_total if progress else None
    if total is None and routed:
        total = routed.chunks_expected
    engines = progress.engines if progress else {}
    return RunningJob(
        job_id=phase.job.job_id,
        video_id=phase.job.video_id,
        method=routed.route.method if routed else None,
        seconds=now - phase.receipt.began,
        audio_seconds=phase.spent.audio_seconds or (routed.expected_seconds if routed else None),
        audio_seconds_done=progress.audio_seconds_done if progress else 0.0,
        chunks_done=progress.chunks_done if progress else 0,
        chunks_total=total,
        chunks=tuple(engines.get(index) for index in range(max(total or 0, max(engines, default=-1) + 1))),
        chunks_in_work=tuple(sorted(progress.in_work)) if progress else (),
        deliveries=phase.deliveries if isinstance(phase, Claimed) else None,
        queued_seconds=phase.receipt.queued_seconds,
    )
