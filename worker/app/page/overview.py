"""The first page, from health documents and results. Pure."""

import shlex
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta

from schemas.events import CompletedEvent, FailedEvent
from schemas.text import plain
from worker.adapters.web.health_document import EndedFacts, HealthDocument, SeenWorker, segment_of
from worker.adapters.web.rendering import counted, span
from worker.adapters.web.views import (
    CostDay,
    EndedRow,
    FailureGroup,
    Figures,
    Overview,
    Problem,
)
from worker.app.page.bucket import KEPT_DAYS, JobResult
from worker.core.costs.report import Period, Spending, report
from worker.core.dead_letters.replay import replay_options

MOST_ROWS = 50
SAME_ENDING = timedelta(minutes=1)
"""A worker's time of an ended job and its result marker's are that close."""
MOST_MESSAGE_CHARACTERS = 400
HEALTHY, LOADING, STOPPING, SILENT = "healthy", "loading", "stopping", "no answer"
FLAGS = {
    "no_speech": "no speech",
    "shorter_than_analysis_window": "speech ends before 59 s",
    "truncated_audio": "audio is cut short",
    "other_tracks": "another track has sound",
}


def overview_of(
    workers: Sequence[SeenWorker], results: Sequence[JobResult] | None, now: datetime, bucket_problem: str = ""
) -> Overview:
    """Return the page; `results` are the newest first, and None where the state bucket is not read."""
    documents = [worker.health for worker in workers if worker.health is not None]
    figures = _figures(documents, results, now)
    running = [(health.worker, job) for health in documents for job in health.jobs.running]
    return Overview(
        headline=_headline(workers),
        lede=_lede(figures) if documents else "Nothing is known of running jobs.",
        seen_at=now,
        problems=list(dict.fromkeys(problem for worker in workers for problem in _problems_of(worker))),
        figures=figures,
        workers=workers,
        place=", ".join(sorted({health.subscription for health in documents})),
        running=sorted(running, key=lambda row: -row[1].seconds),
        recent=_recent(documents, results),
        failures=None if results is None else _failures(results),
        costs=None if results is None else _costs(results, now),
        bucket_problem=bucket_problem,
    )


def _headline(workers: Sequence[SeenWorker]) -> str:
    if not workers:
        return "No worker is named"
    ready = sum(worker.health is not None and worker.health.status == HEALTHY for worker in workers)
    if len(workers) == 1:
        health = workers[0].health
        if health is None:
            return "The worker is starting" if workers[0].is_starting else "The worker does not answer"
        states = {HEALTHY: "ready", LOADING: "loading its model", STOPPING: "stopping"}
        return f"The worker is {states.get(health.status, 'not ready')}"
    return f"{ready} of {len(workers)} workers are ready"


def _lede(figures: Figures) -> str:
    parked = f", {figures.parked} parked" if figures.parked else ""
    parts = [f"{_so_many(figures.running, 'job', 'run')}{parked}."]
    if figures.backlog is not None:
        oldest = (
            f", the oldest for {span(figures.oldest_message_seconds)}"
            if figures.backlog and figures.oldest_message_seconds
            else ""
        )
        parts.append(f"{_so_many(figures.backlog, 'message', 'wait')}{oldest}.")
    return " ".join(parts)


def _so_many(number: int, noun: str, verb: str) -> str:
    """Return `No job runs`, `1 job runs` or `2 jobs run`."""
    return f"{counted(number, noun) if number else f'No {noun}'} {verb}{'s' * (number in {0, 1})}"


def _problems_of(worker: SeenWorker) -> Iterator[Problem]:
    health = worker.health
    if health is None and worker.is_starting:
        return
    if health is None:
        yield Problem(
            title=_sentence(f"{worker.url}: {worker.problem or SILENT}"),
            remedy="start the worker, or correct the address.",
            command=f"klipstream-worker health {shlex.quote(worker.url)}",
        )
        return
    if health.status not in {HEALTHY, LOADING, STOPPING}:
        mends_itself = "remove the cause; the worker tests it again and goes on by itself."
        yield Problem(
            title=_sentence(f"{health.worker} takes no jobs: {health.reason}"),
            remedy=mends_itself if health.status == "unhealthy" else "restart the worker.",
            command="klipstream-worker check",
        )
    if health.urgent and health.urgent.pull_failure:
        yield Problem(
            title=_sentence(f"{health.worker} cannot pull urgent jobs: {health.urgent.pull_failure}"),
            text="They are done in their turn, from the plain subscription.",
            command="klipstream-worker check",
        )
    if health.deepgram.down_because:
        yield Problem(
            title=_sentence(f"{health.worker} cannot use Deepgram: {health.deepgram.down_because}"),
            text="Jobs that need it wait; others go on.",
        )
    if health.deepgram.budget_spent:
        yield Problem(
            title="The day's Deepgram budget is spent.",
            text="Jobs that only Deepgram can do fail until midnight UTC, and can be replayed; others go on.",
            remedy="raise FALLBACK_BUDGET_USD_PER_DAY, or replay them tomorrow.",
            command="klipstream-worker dlq replay --code FALLBACK_BUDGET_EXHAUSTED --execute",
        )


def _sentence(text: str) -> str:
    """Return the text with one full stop: reasons that services give often end in their own."""
    return text.rstrip(".") + "."


def _recent(documents: Sequence[HealthDocument], results: Sequence[JobResult] | None) -> Sequence[EndedRow]:
    facts = {job.job_id: job for health in documents for job in health.last_jobs}
    rows = [_ended(result, facts.get(result.marker.job_id)) for result in (results or ())[:MOST_ROWS]]
    known = {row.job_id for row in rows}
    rows += [_ended_facts(job) for health in documents for job in health.last_jobs if job.job_id not in known]
    return sorted(rows, key=lambda row: row.ended_at, reverse=True)[:MOST_ROWS]


def _ended_facts(job: EndedFacts) -> EndedRow:
    return EndedRow(
        job_id=job.job_id,
        video_id=job.video_id,
        code=job.code,
        note="",
        audio_seconds=job.audio_seconds,
        seconds=job.seconds,
        speed_ratio=job.speed_ratio,
        segments=job.segments,
        chunks=len(job.chunks) or None,
        chunks_by_deepgram=sum(engine == "deepgram" for engine in job.chunks),
        cost_usd=job.cost_usd,
        baseline_usd=job.baseline_usd,
        ended_at=job.ended_at.replace(tzinfo=job.ended_at.tzinfo or UTC),
    )


def _ended(result: JobResult, facts: EndedFacts | None) -> EndedRow:
    ended, cost, marker = result.ended, result.cost, result.marker
    metadata = ended.transcription_metadata if ended else None
    seconds = metadata.processing_time_seconds if metadata else None
    audio_seconds = metadata.audio_duration_seconds if metadata else None
    is_same_run = facts is not None and abs(facts.ended_at - marker.concluded_at) < SAME_ENDING
    return EndedRow(
        job_id=marker.job_id,
        video_id=ended.job.video_id if ended else None,
        code=code_of(result),
        note=", ".join(flags_of(result)),
        audio_seconds=audio_seconds,
        seconds=seconds,
        speed_ratio=audio_seconds / seconds if audio_seconds and seconds and not code_of(result) else None,
        segments=[segment_of(engine) for engine in marker.engines or (facts.chunks if facts and is_same_run else ())],
        chunks=metadata.chunks_total if metadata else None,
        chunks_by_deepgram=chunks_by_deepgram(result),
        cost_usd=cost.usd_total if cost else None,
        baseline_usd=cost.baseline.usd if cost else None,
        ended_at=marker.concluded_at,
    )


def code_of(result: JobResult) -> str | None:
    """Return the error code; None of a completed job."""
    if result.marker.outcome == "completed":
        return None
    return str(result.marker.code.value if result.marker.code else "FAILED")


def flags_of(result: JobResult) -> Sequence[str]:
    """Return the flags of a completed job in words."""
    if not isinstance(result.ended, CompletedEvent):
        return ()
    flags = result.ended.flags
    return [text for name, text in FLAGS.items() if getattr(flags, name)]


def chunks_by_deepgram(result: JobResult) -> int | None:
    """Return how many chunks Deepgram transcribed; None where the events do not have it."""
    ended = result.ended
    if ended is None or ended.transcription_metadata.chunks_total is None:
        return None
    if str(getattr(ended.transcription_metadata.method_used, "value", "")) == "deepgram":
        return ended.transcription_metadata.chunks_total
    return ended.transcription_metadata.chunks_fallback


def _failures(results: Sequence[JobResult]) -> Sequence[FailureGroup]:
    by_code: dict[str, list[JobResult]] = defaultdict(list)
    for result in results:
        if (code := code_of(result)) is not None:
            by_code[code].append(result)
    return [_group(code, failed) for code, failed in by_code.items()]


def replay_command(letters: str, code: str) -> str:
    """Return the command that replays the letters; `letters` are its arguments."""
    return f"klipstream-worker dlq replay {letters} {' '.join(replay_options(code))}"


def _group(code: str, failed: Sequence[JobResult]) -> FailureGroup:
    newest = next((result.ended for result in failed if isinstance(result.ended, FailedEvent)), None)
    error = newest.error if newest else None
    return FailureGroup(
        code=code,
        message=plain(error.error_message, MOST_MESSAGE_CHARACTERS) if error else "",
        remedy=error.suggested_action if error else "read the dead letter.",
        command=replay_command(f"--code {shlex.quote(code)}", code),
        is_retryable=bool(error and error.is_retryable),
        jobs=[(result.marker.job_id, result.marker.concluded_at) for result in failed],
    )


def _costs(results: Sequence[JobResult], now: datetime) -> Sequence[CostDay]:
    start = (now - timedelta(days=KEPT_DAYS - 1)).replace(hour=0, minute=0, second=0, microsecond=0)
    days = report([event for result in results for event in result.events], start).days
    if not days:
        return ()
    nothing = Period()
    calendar = [min(days) + timedelta(days=number) for number in range((now.date() - min(days)).days + 1)]
    return [_cost_day(day, days.get(day, nothing)) for day in calendar[-KEPT_DAYS:]]


def _cost_day(day: date, period: Period) -> CostDay:
    nothing, total = Spending(), period.total
    return CostDay(
        day=day,
        audio_hours=total.audio_hours,
        parakeet_usd=period.engines.get("parakeet", nothing).usd,
        deepgram_usd=period.engines.get("deepgram", nothing).usd,
        usd=total.usd,
        baseline_usd=total.baseline_usd,
    )


def _figures(documents: Sequence[HealthDocument], results: Sequence[JobResult] | None, now: datetime) -> Figures:
    totals = [health.totals for health in documents]
    # the workers of one subscription share one backlog
    waiting = {health.subscription: health.backlog for health in documents if health.backlog is not None}
    ages = [health.oldest_message_seconds for health in documents if health.oldest_message_seconds is not None]
    audio, spent = sum(each.audio_seconds for each in totals), sum(each.processing_seconds for each in totals)
    common = {
        "backlog": sum(waiting.values()) if waiting else None,
        "oldest_message_seconds": max(ages, default=None),
        "running": sum(health.jobs.in_flight for health in documents),
        "slots": sum(health.jobs.slots for health in documents),
        "parked": sum(health.jobs.parked for health in documents),
        "speed_ratio": audio / spent if spent else None,
    }
    if results is None:
        return Figures(
            **common,  # type: ignore[arg-type]
            jobs=sum(each.completed for each in totals),
            failed=sum(each.failed for each in totals),
            audio_hours=audio / 3600,
            usd=sum(each.cost_usd for each in totals),
            baseline_usd=sum(each.baseline_usd for each in totals),
            chunks=sum(each.chunks for each in totals),
            chunks_fallback=sum(each.chunks_fallback for each in totals),
        )
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    today = report([event for result in results for event in result.events], midnight).total
    return Figures(
        **common,  # type: ignore[arg-type]
        jobs=today.jobs - today.failed_jobs,
        failed=today.failed_jobs,
        audio_hours=today.total.audio_hours,
        usd=today.total.usd,
        baseline_usd=today.total.baseline_usd,
        chunks=today.chunks,
        chunks_fallback=today.fallback_chunks,
        period="today",
    )
