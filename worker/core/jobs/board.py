"""What the worker's jobs are doing and what has become of them since it started: for health, `top` and the metrics."""

import math
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from schemas.codes import ErrorCode
from worker.core.jobs.reporting import Account
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
    """A job under way; None is what is not known yet."""

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


@dataclass(frozen=True, eq=False, kw_only=True)
class Entry:
    """One attempt on the board; its account is filled in as the job goes its way."""

    job_id: str
    video_id: str
    account: Account


@dataclass(kw_only=True)
class Board:
    """Belongs to one event loop."""

    totals: Totals = field(default_factory=Totals)
    ended: deque[EndedJob] = field(default_factory=lambda: deque(maxlen=KEPT_JOBS))
    """The newest last."""
    _entries: dict[int, Entry] = field(default_factory=dict)

    @contextmanager
    def showing(self, entry: Entry) -> Iterator[None]:
        """Show the attempt for the length of the block."""
        entry.account.video_id = entry.video_id
        self._entries[id(entry)] = entry
        try:
            yield
        finally:
            del self._entries[id(entry)]

    def running(self, now: float) -> tuple[RunningJob, ...]:
        """Return the jobs of the moment, the oldest first; `now` is the monotonic clock's."""
        return tuple(_running(entry, now) for entry in self._entries.values())

    @property
    def last(self) -> EndedJob | None:
        """The job that ended last."""
        return self.ended[-1] if self.ended else None

    def completed(self, job_id: str, account: Account, now: datetime) -> None:
        """A job's result marker stands."""
        seconds, audio_seconds = account.seconds, account.audio_seconds or 0.0
        speed = audio_seconds / seconds if seconds else 0.0
        self.ended.append(_ended(job_id, account, code=None, now=now, speed_ratio=speed))
        self.totals.completed += 1
        self.totals.audio_seconds += audio_seconds
        self.totals.processing_seconds += seconds
        self._spent(account)
        JOBS.add(outcome="completed")
        JOB_SECONDS.record(seconds)
        QUEUE_SECONDS.record(account.queued_seconds)
        JOB_AUDIO_SECONDS.add(audio_seconds)
        SPEED_RATIO.record(speed)

    def failed(self, job_id: str | None, account: Account, code: ErrorCode, now: datetime) -> None:
        """A message was given up on."""
        self.ended.append(_ended(job_id, account, code=code.value, now=now, speed_ratio=None))
        self.totals.failed += 1
        self._spent(account)
        JOBS.add(outcome="failed")
        DEAD_LETTERS.add(code=code)

    def _spent(self, account: Account) -> None:
        self.totals.chunks += len(account.chunks)
        self.totals.chunks_fallback += sum(account.fallback_reasons.values())
        if (cost := account.cost) is None:
            return
        self.totals.cost_usd += cost.usd
        self.totals.baseline_usd += cost.baseline.usd
        BASELINE_USD.add(cost.baseline.usd)
        for engine in cost.engines:
            COST_USD.add(engine.usd, engine=engine.engine)


def _ended(
    job_id: str | None, account: Account, *, code: str | None, now: datetime, speed_ratio: float | None
) -> EndedJob:
    return EndedJob(
        job_id=job_id,
        video_id=account.video_id,
        code=code,
        ended_at=now,
        seconds=account.seconds,
        speed_ratio=speed_ratio,
        audio_seconds=account.audio_seconds,
        cost_usd=account.cost.usd if account.cost else None,
        baseline_usd=account.cost.baseline.usd if account.cost else None,
        chunks=tuple(chunk.engine for chunk in sorted(account.chunks, key=lambda chunk: chunk.index)),
    )


def _running(entry: Entry, now: float) -> RunningJob:
    account, progress = entry.account, entry.account.progress
    total = _chunks_total(account)
    engines = progress.engines if progress else {}
    return RunningJob(
        job_id=entry.job_id,
        video_id=entry.video_id,
        method=account.route.method if account.route else None,
        seconds=now - account.began,
        audio_seconds=account.audio_seconds or account.expected_seconds,
        audio_seconds_done=progress.audio_seconds_done if progress else 0.0,
        chunks_done=progress.chunks_done if progress else 0,
        chunks_total=total,
        chunks=tuple(engines.get(index) for index in range(max(total or 0, max(engines, default=-1) + 1))),
        chunks_in_work=tuple(sorted(progress.in_work)) if progress else (),
        deliveries=account.deliveries,
        queued_seconds=account.queued_seconds,
    )


def _chunks_total(account: Account) -> int | None:
    if account.progress and account.progress.chunks_total is not None:
        return account.progress.chunks_total
    if account.expected_seconds and account.chunk_seconds:
        return math.ceil(account.expected_seconds / account.chunk_seconds)
    return None
