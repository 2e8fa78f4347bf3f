"""`watch --until-done`: the ends of many jobs, from the state bucket and from the events that come."""

import asyncio
from collections.abc import Iterator
from pathlib import PurePosixPath

from schemas.events import CompletedEvent, Event, FailedEvent
from schemas.state import ResultMarker
from worker.adapters.gcs import open_object_store
from worker.client import completions, own_subscription
from worker.client.connections import AwaitedJob
from worker.commands.bulk.journal import COMPLETED, FAILED, Journal, journal_of, open_journal, place_of
from worker.commands.console import (
    EXIT_FAILED,
    EXIT_USAGE,
    ProgressView,
    fail,
    load_settings,
    note,
    progress,
    say,
    say_json,
)
from worker.commands.prerequisites import demand
from worker.commands.submit import show
from worker.core.jobs.state.files import StateFiles
from worker.settings import CloudSettings
from worker.telemetry import configure_logging


def until_done(source: str | None, *, timeout_seconds: float | None, as_json: bool) -> None:
    """Wait for the jobs of a bulk submission, or for every job that has been begun. Exit 1 unless all completed."""
    cloud = load_settings().cloud
    path = None if source is None else journal_of(source)
    if path is not None and not path.is_file():
        fail(f"{path}: there is no such journal; submit --from makes one beside its file", EXIT_USAGE)
    demand(cloud, pubsub=True, storage=bool(cloud.state_bucket))
    configure_logging("console", "warning")
    with open_journal(path, place_of(cloud)) as journal:
        if path is None:
            asyncio.run(_note_begun(journal, cloud))
        elif not journal.counts():
            fail(f"{path}: no job of it went to {place_of(cloud)}", EXIT_USAGE)
        topic = cloud.completion_topic
        with own_subscription(project_id=cloud.project_id, topic=topic) as subscription:
            all_completed = follow(journal, cloud, subscription, timeout_seconds=timeout_seconds, as_json=as_json)
    if not all_completed:
        raise SystemExit(EXIT_FAILED)


def follow(
    journal: Journal, cloud: CloudSettings, subscription: str, *, timeout_seconds: float | None, as_json: bool
) -> bool:
    """Wait until every job of the journal has ended; return True if all have completed.

    Jobs that ended before the subscription was made are found in the state bucket.
    """
    if waiting := journal.counts().get(None):
        note(f"waiting for {waiting:,} job{'s' * (waiting != 1)}; Ctrl-C ends the wait and not the jobs")
    try:
        with progress(as_json=as_json) as shown:
            if cloud.state_bucket:
                asyncio.run(_look_up(journal, cloud, shown))
            else:
                note("STATE_BUCKET is not set: jobs that ended before now are not seen")
            with completions(
                project_id=cloud.project_id, subscription=subscription, timeout_seconds=timeout_seconds
            ) as events:
                _await(journal, events, shown, as_json=as_json)
    finally:
        _sum_up(journal, as_json=as_json)
    counts = journal.counts()
    if counts.get(None):
        note(f"{counts[None]:,} have not ended within {timeout_seconds:g} s; they go on all the same")
    return set(counts) <= {COMPLETED}


def _await(journal: Journal, events: Iterator[Event], shown: ProgressView, *, as_json: bool) -> None:
    counts = journal.counts()
    size, left = sum(counts.values()), counts.get(None, 0)
    while left and (event := next(events, None)) is not None:
        job_id = event.job.job_id or ""
        if (identity := journal.identity_of(job_id)) is None:
            continue
        if as_json or isinstance(event, FailedEvent):
            with shown.aside():
                show(event, as_json=as_json)
        if not AwaitedJob(job_id=job_id, identity=identity or None).ends_with(event):
            continue
        code = None if not isinstance(event, FailedEvent) else str(event.error.error_code)
        left -= journal.note_end(job_id, COMPLETED if isinstance(event, CompletedEvent) else FAILED, code)
        shown(f"{left:,} of {size:,} jobs have not ended", 1 - left / size)


async def _look_up(journal: Journal, cloud: CloudSettings, shown: ProgressView) -> None:
    """Note the ends that the state bucket has. Raises `StorageServiceError`."""
    async with open_object_store(project=cloud.project_id) as store:
        files = StateFiles(store=store, bucket=cloud.state_bucket)
        asked = 0
        for some in journal.not_completed():
            found = await asyncio.gather(*(files.load(files.result(job_id), ResultMarker) for job_id in some))
            for job_id, marker in zip(some, (stored.content for stored in found), strict=True):
                if marker is not None and journal.request_of(job_id) in {marker.fingerprint, ""}:
                    journal.note_end(job_id, marker.outcome, marker.code.value if marker.code else None)
            asked += len(some)
            shown(f"{asked:,} jobs looked up in gs://{cloud.state_bucket}", None)


async def _note_begun(journal: Journal, cloud: CloudSettings) -> None:
    """Note every job that a worker has taken and that has not ended: those with a claim."""
    if not cloud.state_bucket:
        fail("STATE_BUCKET is not set, and without it a bulk file must say which jobs are meant", EXIT_USAGE)
    async with open_object_store(project=cloud.project_id) as store:
        async for page in store.pages(cloud.state_bucket, "claims/"):
            journal.add_ids(PurePosixPath(facts.ref.name).stem for facts in page)


def _sum_up(journal: Journal, *, as_json: bool) -> None:
    counts, failures = journal.counts(), journal.failures()
    completed, failed, left = counts.get(COMPLETED, 0), counts.get(FAILED, 0), counts.get(None, 0)
    if as_json:
        say_json({"summary": {"completed": completed, "failed": failed, "open": left, "codes": failures}})
        return
    codes = f" ({', '.join(f'{count:,} {code}' for code, count in failures.items())})" if failures else ""
    say(f"{completed:,} completed, {failed:,} failed{codes}, {left:,} not ended")
    if failed:
        say("why, and what to do: klipstream-worker dlq list")
