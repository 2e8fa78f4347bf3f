"""Replays dead letters, optionally edited, and drops them. Decisions are pure functions; two loops carry them out.

A replay is the job's next run: the attribute `run` is incremented, and a later run overrides an earlier failure. An
interrupted replay can be repeated: the run is the same, so its events have the same ids.
"""

import base64
import json
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from typing import Any

from schemas.codes import ErrorCode
from schemas.ids import request_fingerprint
from schemas.job import JobRejected, TranscriptionConfig, TranscriptionJob, parse_job
from schemas.text import plain_json
from schemas.wire import load_object
from worker import errors
from worker.core.dead_letters.entries import DeadLetterEntry, Letter, Origin
from worker.core.dead_letters.hold import Holding
from worker.core.tasks import finished
from worker.errors import MessageRefused
from worker.ports import Clock, Topic

MOST_ATTRIBUTES, MOST_NAME_BYTES, MOST_VALUE_BYTES = 100, 256, 1024
MOST_BYTES = 10_000_000
REPLAYED_BUT_NOT_ACKED = "replayed, but it could not be acknowledged; replaying it again is the same run"
ENDS_OF_JOBS: tuple[type[errors.WorkerError], ...] = (
    errors.AttemptsExhausted,
    errors.AudioForbidden,
    errors.AudioNotFound,
    errors.AudioTooLarge,
    errors.AudioTooLong,
    errors.AudioUndecodable,
    errors.CallFailed,
    errors.DeepgramAuthError,
    errors.DeepgramQuotaError,
    errors.DeepgramUnavailable,
    errors.EngineFailure,
    errors.FallbackBudgetExhausted,
    errors.GpuMemoryError,
    errors.GpuNotAvailable,
    errors.InvalidJob,
    errors.JobExpired,
    errors.JobIdConflict,
    errors.ModelLoadingError,
    errors.TranscriptionTimeout,
    errors.UnsupportedSchemaVersion,
    errors.WorkerError,
)
"""One error of each code; where several share a code, the most general one."""
OF_ORIGIN = {
    Origin.STRAY: "find out who publishes to the dead-letter topic; replay it if it is a job, or drop it",
    Origin.UNREADABLE: "drop it; the export keeps its bytes",
}
OF_A_NEWER_WORKER = "read the reason; the console is older than the worker that wrote it"


class EditRefused(ValueError):
    """The edit cannot be made, or its result would be another dead letter."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Edit:
    """A field of the job and its new value; dots address inner fields: `transcription_config.enable_gpu`."""

    path: tuple[str, ...]
    value: Any

    @classmethod
    def parse(cls, text: str) -> "Edit":
        """Parse `field=value`; the value is JSON if it parses as JSON, otherwise text. Raises `EditRefused`.

        A field that the worker would ignore is refused.
        """
        field, separator, value = text.partition("=")
        if not separator or not all(field.split(".")):
            raise EditRefused(f"must be field=value (got {text!r})")
        if ignored := ignored_field(field):
            raise EditRefused(ignored)
        try:
            return cls(path=tuple(field.split(".")), value=json.loads(value))
        except ValueError:
            return cls(path=tuple(field.split(".")), value=value)


def ignored_field(field: str) -> str:
    """Return why the worker would ignore a field of a job, with fields of a like name, or an empty string."""
    name, _, inner = field.partition(".")
    for known, wanted in ((TranscriptionJob.model_fields, name), (TranscriptionConfig.model_fields, inner)):
        if wanted not in known:
            like = get_close_matches(wanted, known, n=2)
            others = f"did you mean {' or '.join(like)}?" if like else f"it reads {', '.join(sorted(known))}"
            return f"the worker ignores {field}; {others}"
        if name != "transcription_config" or not inner:
            break
    return ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Republish:
    """A message to publish in place of a dead letter."""

    entry: DeadLetterEntry
    data: bytes
    attributes: Mapping[str, str]
    ordering_key: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """A dead letter that is not replayed, and the reason."""

    entry: DeadLetterEntry
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayRules:
    """Options of a replay. A dead letter's run counts its replays: at `max_replays` it is quarantined."""

    edits: tuple[Edit, ...] = ()
    max_replays: int = 3
    limit: int = 10_000
    """Maximum number of letters to replay."""
    per_second: float = 50.0


def plan(entry: DeadLetterEntry, letter: Letter, rules: ReplayRules, now: datetime) -> Republish | Refusal:
    """Decide on one dead letter; `letter` is its full content."""
    if entry.run >= rules.max_replays:
        return Refusal(entry=entry, reason=f"quarantined: it was replayed {entry.run} times and failed again")
    if letter.data is None:
        return Refusal(entry=entry, reason="the original message is not in it")
    try:
        data = edited(letter.data, rules.edits)
    except EditRefused as exc:
        return Refusal(entry=entry, reason=str(exc))
    # A message that was never a run of a job has no next run.
    run = entry.run if entry.origin is Origin.STRAY else entry.run + 1
    provenance = {
        "run": str(run),
        "replay_of": entry.dead_letter_id,
        "replayed_at": now.isoformat(timespec="seconds"),
    }
    attributes = {**letter.attributes, **provenance}
    if reason := unpublishable(data, attributes):
        return Refusal(entry=entry, reason=reason)
    return Republish(entry=entry, data=data, attributes=attributes, ordering_key=letter.ordering_key)


def unpublishable(data: bytes, attributes: Mapping[str, str]) -> str:
    """Return why Pub/Sub would refuse the message, by its documented limits, or an empty string."""
    if len(attributes) > MOST_ATTRIBUTES:
        return (
            f"it would have {len(attributes)} attributes, Pub/Sub takes {MOST_ATTRIBUTES}: drop it and submit the job"
        )
    for name, value in attributes.items():
        if len(name.encode()) > MOST_NAME_BYTES or len(value.encode()) > MOST_VALUE_BYTES:
            return f"its attribute {name[:MOST_NAME_BYTES]!r} is longer than Pub/Sub takes"
    size = len(data) + sum(len(name.encode()) + len(value.encode()) for name, value in attributes.items())
    return f"it would have {size} bytes, Pub/Sub takes {MOST_BYTES}" if size > MOST_BYTES else ""


def edited(data: bytes, edits: tuple[Edit, ...]) -> bytes:
    """Return the job with its edits; other fields, unknown ones too, are unchanged. Raises `EditRefused`."""
    if not edits:
        return data
    document = _document(data)
    for edit in edits:
        _set(document, edit)
    try:
        changed = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as exc:  # a lone surrogate: half a character by its escape, or a byte that is no UTF-8
        raise EditRefused("the edit holds text that is no valid Unicode") from exc
    _check_same_request(data, changed)
    return changed


def planned(
    holding: Holding, entries: Iterable[DeadLetterEntry], rules: ReplayRules, now: datetime
) -> Iterator[Republish | Refusal]:
    """Yield the decision on each letter, read lazily; stop after the limit's last letter."""
    left = rules.limit
    for entry in entries:
        if left <= 0:
            return
        decision = plan(entry, holding.letter(entry), rules, now)
        left -= isinstance(decision, Republish)
        yield decision


async def replay(
    holding: Holding, topic: Topic, decisions: Iterable[Republish | Refusal], *, per_second: float, clock: Clock
) -> AsyncGenerator[Republish | Refusal]:
    """Publish the replays in order and yield the result of each; acknowledge a letter once its replay is confirmed.

    A message that Pub/Sub refuses stays and is yielded as a refusal. Raises `QueueServiceError` at the first publish
    that fails for another reason. A letter that has been begun is finished before a cancellation takes effect.
    """
    for each in decisions:
        if isinstance(each, Refusal):
            yield each
            continue
        yield await finished(_replay_one(holding, topic, each))
        await clock.sleep(1 / per_second)


async def _replay_one(holding: Holding, topic: Topic, each: Republish) -> Republish | Refusal:
    try:
        await topic.publish(each.data, each.attributes, each.ordering_key)
    except MessageRefused as exc:
        return Refusal(entry=each.entry, reason=str(exc))
    settled = await holding.settle(each.entry)
    return each if settled else Refusal(entry=each.entry, reason=REPLAYED_BUT_NOT_ACKED)


async def drop(
    holding: Holding, entries: Iterable[DeadLetterEntry], export: Callable[[str], None]
) -> AsyncGenerator[DeadLetterEntry | Refusal]:
    """Acknowledge each dead letter after `export` has stored it durably as a line of JSON."""
    for entry in entries:
        export(export_line(holding, entry))
        settled = await finished(holding.settle(entry))
        yield entry if settled else Refusal(entry=entry, reason="exported, but it could not be acknowledged")


def export_line(holding: Holding, entry: DeadLetterEntry) -> str:
    """Return a dead letter and its physical messages as one line of JSON."""
    return plain_json(facts_of(holding, entry))


def facts_of(holding: Holding, entry: DeadLetterEntry) -> dict[str, Any]:
    """Return the content of a dead letter, read from the spool; as large as its messages."""
    letter = holding.letter(entry)
    return {
        "dead_letter_id": entry.dead_letter_id,
        "origin": entry.origin.value,
        "code": entry.code,
        "message": letter.message,
        "violations": letter.violations,
        "job_id": entry.job_id,
        "video_id": entry.video_id,
        "run": entry.run,
        "attempts": entry.attempts,
        "crashes": letter.crashes,
        "worker": letter.worker,
        "first_seen": letter.first_seen.isoformat() if letter.first_seen else None,
        "failed_at": entry.failed_at.isoformat(),
        "remedy": remedy_of(entry),
        "messages": [
            {
                "message_id": copy.message_id,
                "publish_time": copy.publish_time.isoformat(),
                "ordering_key": copy.ordering_key,
                "attributes": dict(copy.attributes),
                "data_base64": base64.b64encode(copy.data).decode(),
            }
            for copy in holding.messages(entry)
        ],
    }


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


def remedy_of(entry: DeadLetterEntry) -> str:
    """Return what to do about a dead letter."""
    if entry.origin in OF_ORIGIN:
        return OF_ORIGIN[entry.origin]
    return entry.suggested_action or remedy_of_code(entry.code)


def remedy_of_code(code: str) -> str:
    """Return what to do about failures of a code."""
    remedies = {error.code.value: error.suggested_action for error in ENDS_OF_JOBS}
    return remedies.get(code, OF_A_NEWER_WORKER)


def replay_options(code: str) -> tuple[str, ...]:
    """Return the options with which a replay does not fail again for the same reason."""
    return ("--set", "expires_at=null", "--execute") if code == ErrorCode.EXPIRED.value else ("--execute",)


def known_codes() -> list[str]:
    """Return every code that can end a job."""
    return [code.value for code in ErrorCode if code is not ErrorCode.WORKER_UNFIT]
