"""`job`: one job's story on the terminal, from the state bucket; the page shows the same."""

import asyncio
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from rich.text import Text

from schemas.events import CompletedEvent
from schemas.wire import shorten
from worker.adapters.web.health_document import Segment
from worker.adapters.web.rendering import grouped, span, usd
from worker.adapters.web.views import JobStory
from worker.app.page.bucket import JobReader, StateBucket, is_job_id
from worker.app.page.host import state_bucket
from worker.app.page.story import JobTraces, story_of
from worker.commands.console import EXIT_USAGE, TextPart, cell, fail, line, load_settings, note, out, say, say_json
from worker.commands.prerequisites import demand
from worker.commands.tables import Card, print_fitted
from worker.errors import WorkerError
from worker.telemetry import configure_logging

MOST_BEGINNING = 400
STRIP_CELLS = 60
MARKS: dict[Segment, TextPart] = {
    "parakeet": ("█", "blue"),
    "deepgram": ("▒", "yellow"),
    "working": (">", "bold"),
    "failed": ("x", "red"),
    "waiting": "·",
}
STATUS_STYLES = {"completed": "green", "failed": "bold red", "running": "cyan", "waiting": "yellow"}
LOG_DAYS = 30
"""Retention of Cloud Logging's default bucket; gcloud reads one day unless `--freshness` asks for more."""


@dataclass(frozen=True, kw_only=True)
class SeenJob:
    """Everything that was read of a job, and its story."""

    traces: JobTraces
    story: JobStory
    unread: str = ""
    """Why the transcript could not be read."""


def job(job_id: str, *, as_json: bool) -> None:
    """Print the story of a job. Exit 1 where the bucket knows none of this id."""
    _demand_id(job_id)
    cloud = load_settings().cloud
    if (bucket := state_bucket(cloud)) is None:
        fail("STATE_BUCKET is not set; it names the bucket that holds the state of jobs", EXIT_USAGE)
    demand(cloud, storage=True)
    configure_logging("console", "warning")
    seen = asyncio.run(_look(bucket, job_id))
    if as_json:
        say_json(document(seen))
    else:
        show(seen)


def log_query(job_id: str, *, as_json: bool = False) -> None:
    """Print the filter of Cloud Logging that finds the job's log lines, and the command that reads them."""
    _demand_id(job_id)
    project, query = load_settings().cloud.project_id, f'labels.job_id="{job_id}"'
    form = "value(timestamp,labels.worker,jsonPayload.message)"
    command = (
        f"gcloud logging read {shlex.quote(query)} --project={shlex.quote(project)} --freshness={LOG_DAYS}d "
        f"--order=asc --format={shlex.quote(form)}"
    )
    if as_json:
        say_json({"query": query, "command": command})
        return
    say(query)
    say(command)


def show(seen: SeenJob) -> None:
    """Print the story as text; addresses and commands stay on one line each, to be copied."""
    story = seen.story
    chips = [part for chip in story.chips for part in ("  ", (chip, "yellow"))]
    say((story.job_id, "bold"), "  ", (story.status, STATUS_STYLES[story.status]), *chips)
    say(f"video {story.video_id}")
    out().print(cell(story.lede), soft_wrap=False)
    _strip(story.segments)
    if (problem := story.problem) is not None:
        _section(problem.title, [("", problem.text), ("", problem.remedy)], "bold red")
        if problem.command:
            say(f"  {problem.command}")
    _steps(story)
    costs = [(each.engine, f"{usd(each.usd)}  {each.text}") for each in story.costs]
    together = ("together", f"{usd(story.usd)}  Deepgram alone {usd(story.baseline_usd)}")
    _section("Cost", [*costs, together] if costs else [])
    _section("Facts", story.facts)
    if story.artefacts:
        _heading("Artefacts")
        for _, uri, size in story.artefacts:
            say(f"  {uri}  ", (f"{size:,} bytes", "dim"))
    beginning = story.beginning or seen.unread
    _section("Transcript", [("", beginning)] if beginning else [])


def document(seen: SeenJob) -> dict[str, Any]:
    """Return the job as JSON: what is stored, as it is stored, and the story."""
    traces, story = seen.traces, seen.story
    result, claim = traces.result, traces.claim
    letter = result.dead_letter if result else None
    return {
        "job_id": story.job_id,
        "video_id": story.video_id,
        "status": story.status,
        "summary": story.lede,
        "run": result.marker.run if result else claim.run if claim else None,
        "claim": claim.model_dump(mode="json", exclude={"schema_version", "claim_id", "beat"}) if claim else None,
        "chunks": list(story.segments),
        "checkpoints": [
            {**chunk.model_dump(mode="json", exclude={"windows", "schema_version"}), "written_at": at.isoformat()}
            for chunk, at in traces.checkpoints
        ],
        "steps": [
            {"at": step.at.isoformat() if step.at else None, "title": step.title, "text": step.text}
            for step in story.steps
        ],
        "events": [event.model_dump(mode="json") for event in result.events] if result else [],
        "dead_letter": letter.model_dump(mode="json", exclude={"original"}) if letter else None,
        "replay": story.problem.command if story.problem else None,
        "transcript_beginning": story.beginning or None,
        "transcript_problem": seen.unread or None,
    }


# reading


def _demand_id(job_id: str) -> None:
    if not is_job_id(job_id):
        allowed = "1 to 128 of A-Z a-z 0-9 . _ -, the first a letter or digit"
        fail(f"{shorten(job_id)}: no job has such an id: {allowed}", EXIT_USAGE)


async def _look(bucket: StateBucket, job_id: str) -> SeenJob:
    reader = JobReader(bucket=bucket)
    async with bucket.opened():
        traces = JobTraces(job_id=job_id, **await reader.read(job_id))
        if not traces.is_known:
            job_id = _only_one(job_id, await reader.near(job_id), bucket.name)
            traces = JobTraces(job_id=job_id, **await reader.read(job_id))
        unread, ended = "", traces.result.ended if traces.result else None
        if isinstance(ended, CompletedEvent):
            try:
                traces = replace(traces, beginning=await reader.beginning(ended, MOST_BEGINNING))
            except WorkerError as exc:
                unread = f"not read: {exc}"
    return SeenJob(traces=traces, story=story_of(traces, datetime.now(UTC)), unread=unread)


def _only_one(job_id: str, near: Sequence[str], bucket: str) -> str:
    """Return the one job whose id begins so; the command ends where there is none or more than one."""
    found = [name for name in near if name.startswith(job_id)]
    if not found:
        rather = f" Ids like it: {', '.join(near)}." if near else ""
        fail(
            f"gs://{bucket} has no trace of {job_id}.{rather} A job leaves none until a worker takes it: it may wait "
            f"in the queue. A message that is no job leaves none either: klipstream-worker dlq list --job {job_id}"
        )
    if len(found) > 1:
        fail(f"{job_id}: several jobs begin so: {', '.join(found)}")
    note(f"{job_id} is short for {found[0]}")
    return found[0]


# writing


def _heading(text: str, style: str = "bold") -> None:
    say()
    say((text, style))


def _section(title: str, facts: Sequence[tuple[str, str | Text]], style: str = "bold") -> None:
    """Print facts below a heading, where there are any; those without a name are text."""
    if facts:
        _heading(title, style)
        print_fitted(Card(facts=[(f"  {name}" if name else "", value) for name, value in facts]))


def _strip(segments: Sequence[Segment]) -> None:
    if not segments:
        return
    counts = [f"{segments.count(kind)} {kind}" for kind in MARKS if kind in segments]
    say(*(MARKS[segment] for segment in grouped(segments, min(out().width, STRIP_CELLS))))
    out().print(f"{len(segments)} chunk{'s' * (len(segments) > 1)}: {', '.join(counts)}", soft_wrap=False)


def _steps(story: JobStory) -> None:
    first = next((step.at for step in story.steps if step.at), None)
    facts = []
    for step in story.steps:
        title = (step.title, "red" if step.is_trouble else "bold")
        took = (f"  {span(step.seconds)}", "dim") if step.seconds is not None else ""
        at = f"{step.at.astimezone(UTC):%H:%M:%S}" if step.at else ""
        facts.append((at, line(title, f"  {step.text}" if step.text else "", took)))
    _section(f"What happened, {first.astimezone(UTC):%Y-%m-%d} UTC" if first else "What happened", facts)
