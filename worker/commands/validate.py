"""`validate`: the acceptance run of a deployed environment: jobs through it, and what came of them against promises.

It is the pipeline's side and nothing else: it uploads audio, publishes jobs and reads their events, so its account
needs what the pipeline's has, and `pubsub.subscriptions.create` for a subscription of its own.
"""

import asyncio
import operator
import subprocess
import tempfile
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from rich.text import Text

from schemas.codes import Method
from schemas.events import CompletedEvent, CostEvent, Event, FailedEvent
from worker import client
from worker.adapters.audio import find_ffmpeg
from worker.adapters.gcs import open_object_store
from worker.app.sample import SPEECH
from worker.commands.console import EXIT_FAILED, EXIT_USAGE, cell, fail, load_settings, say, say_json
from worker.commands.job_fields import demand_bucket, located
from worker.commands.prerequisites import demand, demand_temp_dir
from worker.commands.submit import show
from worker.commands.tables import NOTHING, Field, FittedTable, print_fitted
from worker.ports import ObjectRef
from worker.settings import CloudSettings
from worker.telemetry import configure_logging

FOLDER = "validation"
MEDIA_TYPE = "audio/mpeg"
CLOCK_BY_SAMPLES = "asetpts=N/SR/TB"
"""Without it the encoder's delay counts anew in every repetition, and the file ends 0.3 % early."""
THE_PIPELINES_MP3 = ("-ar", "8000", "-ac", "1", "-c:a", "libmp3lame", "-b:a", "32k")
JOB_FIELDS = (
    Field(name="job", least=18, is_id=True),
    Field(name="result", least=20),
    Field(name="audio", right=True),
    Field(name="waited", right=True, rank=2),
    Field(name="took", right=True),
    Field(name="speed", right=True),
    Field(name="fallback", right=True, rank=1),
    Field(name="USD", right=True),
    Field(name="asked for", rank=3),
)
PROMISE_FIELDS = (
    Field(name="criterion"),
    Field(name="measured", right=True),
    Field(name="promised", right=True),
    Field(name="unit"),
    Field(name="verdict"),
)
SECONDS_PER_HOUR, SECONDS_PER_MINUTE, PERCENT = 3600.0, 60.0, 100.0
SPEED_RATIO = 40.0
USD_PER_AUDIO_HOUR = 0.027
SUCCESS_PERCENT = 99.0
SAVINGS_PERCENT = 90.0
FALLBACK_PERCENT = 5.0
MINUTES_BY_AUDIO_HOURS = {0.5: 2.0, 2.0: 6.0, 4.0: 12.0}
# An MP3 is some hundredths of a second longer than what went into it.
LENGTH_TOLERANCE_SECONDS = 1.0
# Other forced methods choose to pay and to wait for Deepgram: speed and money are not judged by such jobs.
JUDGED_METHODS = frozenset({Method.AUTO, Method.PARAKEET})
COMPARISONS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


@dataclass(frozen=True, kw_only=True)
class AcceptancePlan:
    """Jobs to send: every URI and every length of synthetic speech, by every method."""

    audio: Sequence[str]
    """Addresses of objects, or files here, which are uploaded to `bucket`."""
    hours: Sequence[float]
    methods: Sequence[Method]
    copies: int
    at_once: int
    bucket: str | None
    """Bucket for synthetic speech and for files."""
    timeout_seconds: float


@dataclass(kw_only=True)
class Trial:
    """A job of the run and its events so far."""

    job_id: str
    audio_uri: str
    method: Method
    event: CompletedEvent | FailedEvent | None = None
    cost: CostEvent | None = None

    def hear(self, event: Event) -> None:
        """Keep what says how it ended."""
        if isinstance(event, CompletedEvent | FailedEvent):
            self.event = event
        elif isinstance(event, CostEvent):
            self.cost = event

    @property
    def has_ended(self) -> bool:
        """Both of its last events are there."""
        return self.event is not None and self.cost is not None

    @property
    def completed(self) -> CompletedEvent | None:
        """Its event, where it went well."""
        return self.event if isinstance(self.event, CompletedEvent) else None


@dataclass(frozen=True)
class Criterion:
    """One promise: `value` is None if no job of the run has the figure."""

    name: str
    value: float | None
    comparison: Literal["<", "<=", ">", ">="]
    limit: float
    unit: str

    @property
    def passed(self) -> bool | None:
        """True if the promise was kept; None if there is no figure."""
        return None if self.value is None else bool(COMPARISONS[self.comparison](self.value, self.limit))


def validate(plan: AcceptancePlan, *, as_json: bool) -> None:
    """Run it and print the verdict. Exit 1 unless every promise was kept."""
    settings, run = load_settings(), uuid.uuid4().hex[:8]
    demand_bucket(plan.bucket or "")
    if plan.hours and not plan.bucket:
        fail("made speech needs a bucket to lie in: --bucket, or AUDIO_BUCKET", EXIT_USAGE)
    demand_temp_dir(settings.jobs)
    demand(settings.cloud, pubsub=True, storage=bool(plan.hours))
    configure_logging("console", "warning")
    given = [located(audio, plan.bucket, f"{FOLDER}-{run}") for audio in plan.audio]
    speech = asyncio.run(_uploaded_speech(plan, settings.jobs.temp_dir, settings.cloud.project_id, run))
    wanted = [(uri, method) for _ in range(plan.copies) for uri in (*given, *speech) for method in plan.methods]
    trials = [
        Trial(job_id=f"validate-{run}-{number}", audio_uri=uri, method=method)
        for number, (uri, method) in enumerate(wanted, 1)
    ]
    _carry_out(trials, plan, settings.cloud, as_json=as_json)
    criteria = judged(trials)
    if as_json:
        say_json(_document(run, trials, criteria))
    else:
        _show(trials, criteria)
    if not has_passed(criteria):
        raise SystemExit(EXIT_FAILED)


async def _uploaded_speech(plan: AcceptancePlan, temp_dir: Path, project: str, run: str) -> list[str]:
    """Speech of each length in the bucket; their URIs."""
    if not plan.bucket or not plan.hours:
        return []
    uris = []
    with tempfile.TemporaryDirectory(dir=temp_dir) as folder:
        async with open_object_store(project=project) as store:
            for hours in plan.hours:
                file = _speech(hours, Path(folder))
                ref = ObjectRef(plan.bucket, f"{FOLDER}/{run}/{file.name}")
                await store.upload_file(file, ref, MEDIA_TYPE)
                uris.append(ref.uri)
    return uris


def _speech(hours: float, folder: Path) -> Path:
    """Repeat the built-in sample up to that length, encoded as the pipeline does."""
    file = folder / f"{hours:g}h.mp3"
    again = ("-stream_loop", "-1", "-i", SPEECH, "-af", CLOCK_BY_SAMPLES, "-t", str(hours * SECONDS_PER_HOUR))
    command = (find_ffmpeg(), "-hide_banner", "-loglevel", "error", *again, *THE_PIPELINES_MP3, file)
    done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or [f"ended with {done.returncode}"]
        fail(f"no speech of {hours:g} h in TEMP_DIR, {folder}: ffmpeg: {said[-1]}")
    return file


def _carry_out(trials: Sequence[Trial], plan: AcceptancePlan, settings: CloudSettings, *, as_json: bool) -> None:
    """Keep the given number of jobs in flight until all have ended, the time is over or Ctrl-C."""
    project, waiting = settings.project_id, iter(trials)

    def publish(count: int) -> None:
        for trial in islice(waiting, count):
            wish = {"job_id": trial.job_id, "video_id": trial.job_id, "audio_uri": trial.audio_uri}
            client.submit({**wish, "force_method": trial.method.value}, project_id=project, topic=settings.jobs_topic)

    with (
        client.own_subscription(project_id=project, topic=settings.completion_topic) as subscription,
        client.completions(
            project_id=project, subscription=subscription, timeout_seconds=plan.timeout_seconds
        ) as events,
        suppress(KeyboardInterrupt),
    ):
        publish(plan.at_once)
        running = {trial.job_id: trial for trial in trials}
        while running and (event := next(events, None)) is not None:
            if (trial := running.get(event.job.job_id or "")) is None:
                continue
            trial.hear(event)
            if not as_json:
                show(event, as_json=False)
            if trial.has_ended:
                del running[trial.job_id]
                publish(1)


# promises, judged


def judged(trials: Sequence[Trial]) -> tuple[Criterion, ...]:
    """Every promise."""
    completed = [job.completed for job in trials if job.completed]
    told = [event.transcription_metadata for event in completed]
    told = [one for one in told if one.method_requested in JUDGED_METHODS]
    costs = [job.cost for job in trials if job.cost and job.completed and job.method in JUDGED_METHODS]
    audio, busy = sum(one.audio_duration_seconds for one in told), sum(one.processing_time_seconds for one in told)
    fallen, chunks = sum(one.chunks_fallback for one in told), sum(one.chunks_total for one in told)
    spent, baseline = sum(cost.usd_total for cost in costs), sum(cost.baseline.usd for cost in costs)
    hours = sum(cost.audio_seconds for cost in costs) / SECONDS_PER_HOUR
    return (
        Criterion("success", _ratio(PERCENT * len(completed), len(trials)), ">", SUCCESS_PERCENT, "% of jobs"),
        Criterion("speed", _ratio(audio, busy), ">=", SPEED_RATIO, "x real time"),
        Criterion("fallback", _ratio(PERCENT * fallen, chunks), "<", FALLBACK_PERCENT, "% of chunks"),
        Criterion("cost", _ratio(spent, hours), "<=", USD_PER_AUDIO_HOUR, "USD an audio hour"),
        Criterion("savings", _ratio(PERCENT * (baseline - spent), baseline), ">", SAVINGS_PERCENT, "% below Deepgram"),
        *(
            Criterion(f"up to {hours:g} h of audio", _slowest_minutes(completed, hours), "<", minutes, "minutes")
            for hours, minutes in MINUTES_BY_AUDIO_HOURS.items()
        ),
    )


def has_passed(criteria: Sequence[Criterion]) -> bool:
    """Return True if every promise with a figure was kept, and at least one has a figure."""
    told = [criterion.passed for criterion in criteria if criterion.passed is not None]
    return bool(told) and all(told)


def _slowest_minutes(events: Sequence[CompletedEvent], hours: float) -> float | None:
    """Return the time of the slowest job to which this limit, and no stricter one, applies; without queue time."""
    shorter = max((other for other in MINUTES_BY_AUDIO_HOURS if other < hours), default=0.0)
    minutes = []
    for told in (event.transcription_metadata for event in events):
        seconds = max(told.audio_duration_seconds - LENGTH_TOLERANCE_SECONDS, LENGTH_TOLERANCE_SECONDS)
        if shorter < seconds / SECONDS_PER_HOUR <= hours:
            minutes.append(told.processing_time_seconds / SECONDS_PER_MINUTE)
    return max(minutes, default=None)


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


# showing


def _show(trials: Sequence[Trial], criteria: Sequence[Criterion]) -> None:
    print_fitted(_job_table(trials), "", _verdict_table(criteria))
    kept = sum(criterion.passed is True for criterion in criteria)
    broken = sum(criterion.passed is False for criterion in criteria)
    colour, untold = ("green" if has_passed(criteria) else "red"), len(criteria) - kept - broken
    say((f"{kept} kept, {broken} broken", colour), f", {untold} without a figure (jobs: {len(trials)})")


def _job_table(trials: Sequence[Trial]) -> FittedTable:
    rows = [(trial.job_id, *_outcome(trial), trial.method.value) for trial in trials]
    return FittedTable(title="jobs", fields=JOB_FIELDS, rows=rows)


def _outcome(trial: Trial) -> tuple[str | Text, ...]:
    if (completed := trial.completed) is None:
        failed = trial.event.error.error_code if isinstance(trial.event, FailedEvent) else "no answer in time"
        return (cell(failed, "red"), *[""] * 6)
    metadata = completed.transcription_metadata
    return (
        str(getattr(metadata.method_used, "value", metadata.method_used)),
        f"{metadata.audio_duration_seconds / SECONDS_PER_HOUR:.2f} h",
        f"{metadata.queue_time_seconds:.1f} s",
        f"{metadata.processing_time_seconds:.1f} s",
        f"{metadata.processing_speed_ratio:.0f}x",
        f"{metadata.chunks_fallback} of {metadata.chunks_total}",
        f"{trial.cost.usd_total:.6f}" if trial.cost else NOTHING,
    )


def _verdict_table(criteria: Sequence[Criterion]) -> FittedTable:
    marks = {True: ("pass", "green"), False: ("FAIL", "bold red"), None: ("no figure", "yellow")}
    rows = []
    for one in criteria:
        value = NOTHING if one.value is None else f"{one.value:.4g}"
        rows.append((one.name, value, f"{one.comparison} {one.limit:g}", one.unit, cell(*marks[one.passed])))
    return FittedTable(title="promises", fields=PROMISE_FIELDS, rows=rows)


def _document(run: str, trials: Sequence[Trial], criteria: Sequence[Criterion]) -> dict[str, Any]:
    return {
        "run": run,
        "passed": has_passed(criteria),
        "criteria": [{**vars(criterion), "passed": criterion.passed} for criterion in criteria],
        "jobs": [
            {
                "job_id": trial.job_id,
                "audio_uri": trial.audio_uri,
                "force_method": trial.method.value,
                "event": trial.event.model_dump(mode="json") if trial.event else None,
                "cost": trial.cost.model_dump(mode="json") if trial.cost else None,
            }
            for trial in trials
        ],
    }
