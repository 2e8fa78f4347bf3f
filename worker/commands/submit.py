"""`submit` and `watch`: publish a job, see what becomes of it."""

import json
import shlex
from collections.abc import Mapping
from contextlib import suppress
from enum import Enum
from typing import Any

from rich.text import Text

from schemas.events import CompletedEvent, CostEvent, Event, FailedEvent, ProgressEvent
from schemas.job import parse_job
from worker import client
from worker.client.connections import AwaitedJob
from worker.commands.console import EXIT_FAILED, fail, line, load_settings, out, say, say_json
from worker.commands.job_fields import SCHEME, keyterms_text, located
from worker.commands.prerequisites import demand
from worker.commands.tables import beside_deepgram
from worker.core.dead_letters.entries import SHORT_ID
from worker.telemetry import configure_logging

UPLOADED = "gs://bucket/object"
"""In place of the address of a file that is not uploaded yet."""
MOST_OF_A_MESSAGE = 2_000
"""Characters of an error message that are shown; the event has all of it."""


def submit(
    audio: str, bucket: str | None, fields: Mapping[str, Any], *, wait: bool, timeout_seconds: float, as_json: bool
) -> None:
    """Publish; with `wait`, print the job's events until it has ended. Exit 1 when it failed or took too long.

    A local file is uploaded to `bucket` first; what is no job is refused before that.
    """
    settings = load_settings().cloud
    configure_logging("console", "warning")
    parse_job(json.dumps({**fields, "audio_uri": audio if audio.startswith(SCHEME) else UPLOADED}).encode())
    audio_uri = located(audio, bucket, fields["video_id"])
    job = {**fields, "audio_uri": audio_uri, "metadata": {"audio_uri": audio_uri}}
    demand(settings, pubsub=True)
    project, topic = settings.project_id, settings.jobs_topic
    if not wait:
        message_id = client.submit(job, project_id=project, topic=topic)
        _print(as_json, {"job_id": job["job_id"], "message_id": message_id}, line(f"published {job['job_id']}"))
        return
    with client.own_subscription(project_id=project, topic=settings.completion_topic) as subscription:
        client.submit(job, project_id=project, topic=topic)
        _print(as_json, {"job_id": job["job_id"]}, line(f"published {job['job_id']}"))
        ended = _follow(project, subscription, AwaitedJob.of(job), timeout_seconds, as_json=as_json)
    if not isinstance(ended, CompletedEvent):
        if not as_json:
            advise(ended)
        raise SystemExit(EXIT_FAILED)


def advise(event: FailedEvent) -> None:
    """Print what to do about a failed job, and the command that shows its dead letter."""
    say(("what to do", "bold"), f"   {event.error.suggested_action}")
    if letter := event.error.support_reference:
        say(("dead letter", "bold"), f"  klipstream-worker dlq show {shlex.quote(letter[:SHORT_ID])}")


def watch(*, as_json: bool) -> None:
    """Print events as they come, until Ctrl-C, from a subscription of this command's own."""
    settings = load_settings().cloud
    demand(settings, pubsub=True)
    configure_logging("console", "warning")
    with (
        suppress(KeyboardInterrupt),
        client.own_subscription(project_id=settings.project_id, topic=settings.completion_topic) as subscription,
        client.completions(project_id=settings.project_id, subscription=subscription) as events,
    ):
        for event in events:
            show(event, as_json=as_json)


def show(event: Event, *, as_json: bool) -> None:
    """One event as one line."""
    _print(as_json, event.model_dump(mode="json"), describe(event))


def describe(event: Event) -> Text:
    """Return what an event says as one line; everything that it quotes is text."""
    head = f"{event.occurred_at:%H:%M:%S} {event.job.job_id or '(no job id)'} "
    match event:
        case CompletedEvent(transcription_metadata=told):
            return line(
                head,
                ("completed", "green"),
                f" {told.words_count} words in {told.audio_duration_seconds:.0f} s of audio, ",
                f"{told.processing_speed_ratio:.0f}x real time, {_value(told.method_used)}",
                keyterms_text(told.keyterms_found, told.keyterms_unspeakable),
                ": ",
                event.artefacts.words.uri,
            )
        case FailedEvent(error=error):
            return line(
                head, ("failed", "red"), f" {_value(error.error_code)} {error.error_message[:MOST_OF_A_MESSAGE]}"
            )
        case CostEvent():
            return line(head, ("cost", "cyan"), f" ${event.usd_total:.6f}, {beside_deepgram(event.savings_percent)}")
        case ProgressEvent():
            return line(head, f"progress {event.audio_seconds_done:.0f} s of audio done")


def _value(member: Enum | str) -> str:
    return member.value if isinstance(member, Enum) else member


def _follow(
    project: str, subscription: str, job: AwaitedJob, timeout_seconds: float, *, as_json: bool
) -> CompletedEvent | FailedEvent:
    with client.completions(
        project_id=project, subscription=subscription, job_id=job.job_id, timeout_seconds=timeout_seconds
    ) as events:
        for event in events:
            show(event, as_json=as_json)
            if job.ends_with(event) and isinstance(event, CompletedEvent | FailedEvent):
                return event
    return fail(f"{job.job_id} has not ended within {timeout_seconds:g} s; it goes on all the same")


def _print(as_json: bool, data: dict[str, Any], text: Text) -> None:
    if as_json:
        say_json(data)
    else:
        out().print(text)
