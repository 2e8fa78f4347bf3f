"""Republishes dead letters, edited where an operator says so, and drops them. Deciding is pure; acting is two loops.

A replay is the job's next run: the attribute `run` goes up by one, and the worker lets a later run override an earlier
failure. An interrupted replay is simply done again: the run is the same, so its events have the same ids.
"""

import base64
import json
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from schemas.decoding import load_object
from schemas.ids import request_fingerprint
from schemas.job import JobRejected, TranscriptionJob, parse_job
from worker.core.delivery.dead_letters import Entry
from worker.core.delivery.holding import Holding
from worker.ports import Clock, Topic


class EditRefused(ValueError):
    """The edit cannot be made, or would only make another dead letter."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Edit:
    """A field of the job and its new value; a dot leads into an object: `transcription_config.enable_gpu`."""

    path: tuple[str, ...]
    value: Any

    @classmethod
    def parse(cls, text: str) -> "Edit":
        """Read `field=value`, the value as JSON where it is JSON and else as text. Raises `EditRefused`."""
        field, separator, value = text.partition("=")
        if not separator or not all(field.split(".")):
            raise EditRefused(f"must be field=value (got {text!r})")
        try:
            return cls(path=tuple(field.split(".")), value=json.loads(value))
        except ValueError:
            return cls(path=tuple(field.split(".")), value=value)


@dataclass(frozen=True, kw_only=True, slots=True)
class Republish:
    """A message to publish in place of a dead letter."""

    entry: Entry
    data: bytes
    attributes: Mapping[str, str]
    ordering_key: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """A dead letter that stays where it is, and why."""

    entry: Entry
    reason: str


def plan(entry: Entry, edits: Iterable[Edit], *, max_replays: int, now: datetime) -> Republish | Refusal:
    """Decide on one dead letter. Its run counts its replays: at `max_replays` it is quarantined."""
    if entry.run >= max_replays:
        return Refusal(entry=entry, reason=f"quarantined: it was replayed {entry.run} times and failed again")
    if entry.data is None:
        return Refusal(entry=entry, reason="the original message is not in it")
    try:
        data = edited(entry.data, tuple(edits))
    except EditRefused as exc:
        return Refusal(entry=entry, reason=str(exc))
    provenance = {
        "run": str(entry.run + 1),
        "replay_of": entry.dead_letter_id,
        "replayed_at": now.isoformat(timespec="seconds"),
    }
    return Republish(
        entry=entry, data=data, attributes={**entry.attributes, **provenance}, ordering_key=entry.ordering_key
    )


def edited(data: bytes, edits: tuple[Edit, ...]) -> bytes:
    """The job with its edits, every other field as it was, unknown ones too. Raises `EditRefused`."""
    if not edits:
        return data
    document = _document(data)
    for edit in edits:
        _set(document, edit)
    changed = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    _check_same_request(data, changed)
    return changed


async def replay(
    holding: Holding, topic: Topic, plans: Iterable[Republish], *, per_second: float, clock: Clock
) -> AsyncGenerator[Republish]:
    """Republish one after another and yield each that is done; a dead letter is acked once its republish is confirmed.

    Raises `QueueServiceError` at the first publish that is not confirmed; what has not been yielded is still held.
    """
    for each in plans:
        await topic.publish(each.data, each.attributes, each.ordering_key)
        await holding.settle(each.entry)
        yield each
        await clock.sleep(1 / per_second)


async def drop(holding: Holding, entries: Iterable[Entry], export: Callable[[str], None]) -> AsyncGenerator[Entry]:
    """Ack each dead letter after `export` took it as a line of JSON and returned, which promises that it is durable."""
    for entry in entries:
        export(export_line(entry))
        await holding.settle(entry)
        yield entry


def export_line(entry: Entry) -> str:
    """Everything known of a dead letter as one line of JSON, its physical messages included."""
    facts = {
        "dead_letter_id": entry.dead_letter_id,
        "origin": entry.origin.value,
        "code": entry.code,
        "message": entry.message,
        "violations": entry.violations,
        "job_id": entry.job_id,
        "video_id": entry.video_id,
        "run": entry.run,
        "attempts": entry.attempts,
        "failed_at": entry.failed_at.isoformat(),
        "messages": [
            {
                "message_id": copy.message_id,
                "publish_time": copy.publish_time.isoformat(),
                "ordering_key": copy.ordering_key,
                "attributes": dict(copy.attributes),
                "data_base64": base64.b64encode(copy.data).decode(),
            }
            for copy in entry.copies
        ],
    }
    return json.dumps(facts, ensure_ascii=False)


def _document(data: bytes) -> dict[str, Any]:
    try:
        return load_object(data)
    except ValueError as exc:
        raise EditRefused(f"the original {exc}") from exc


def _set(document: dict[str, Any], edit: Edit) -> None:
    config = document.get("transcription_config")
    if edit.path == ("force_method",) and isinstance(config, dict):
        config.pop("method", None)  # its alias, which would contradict it
    *way, name = edit.path
    for step in way:
        document = document.setdefault(step, {})
        if not isinstance(document, dict):
            raise EditRefused(f"{'.'.join(edit.path)}: {step} is not an object")
    document[name] = edit.value


def _check_same_request(before: bytes, after: bytes) -> None:
    try:
        new, _ = parse_job(after)
    except JobRejected as exc:
        raise EditRefused(f"the edited message would not be a valid job: {exc}") from exc
    old = _job_or_none(before)
    if old and old.job_id == new.job_id and request_fingerprint(old) != request_fingerprint(new):
        raise EditRefused("that asks for something else under the same job_id: set another job_id as well")


def _job_or_none(data: bytes) -> TranscriptionJob | None:
    try:
        return parse_job(data)[0]
    except JobRejected:
        return None
