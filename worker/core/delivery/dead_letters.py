"""Dead letters as the console shows them: read, folded, selected, counted. Pure.

Two kinds lie on the dead-letter topic: the worker's own envelopes, and messages that the subscription's policy
forwarded as they were. At-least-once delivery makes physical duplicates of both; a dead letter is what shares an id.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from schemas.codes import ErrorCode
from schemas.dead_letter import DeadLetter, DeadLetterUnreadable, parse_dead_letter
from schemas.ids import dead_letter_id, job_identity, message_identity
from schemas.job import JobEcho, JobRejected, parse_job
from worker.ports import Delivery

FORWARDING_PREFIX = "CloudPubSubDeadLetterSource"
"""Begins every attribute that Pub/Sub adds to a message it forwards."""


class Origin(StrEnum):
    """Who put it there: the worker, the subscription's policy, or somebody whose envelope cannot be read."""

    WORKER = "worker"
    POLICY = "policy"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One dead letter, with every copy of it that is held."""

    dead_letter_id: str
    origin: Origin
    code: str
    message: str
    violations: tuple[str, ...] = ()
    job_id: str | None
    video_id: str | None
    run: int
    attempts: int
    failed_at: datetime
    data: bytes | None
    """The message that failed, or None where it was not kept or cannot be read."""
    attributes: Mapping[str, str]
    """That message's own."""
    ordering_key: str = ""
    copies: tuple[Delivery, ...]

    def age(self, now: datetime) -> timedelta:
        """How long ago the job failed."""
        return now - self.failed_at


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Which dead letters are meant; what is empty or None does not restrict."""

    ids: frozenset[str] = frozenset()
    codes: frozenset[str] = frozenset()
    job_ids: frozenset[str] = frozenset()
    video_ids: frozenset[str] = frozenset()
    older_than: timedelta | None = None
    newer_than: timedelta | None = None

    def matches(self, entry: Entry, now: datetime) -> bool:
        """Whether all restrictions hold."""
        named = (
            (self.ids, entry.dead_letter_id),
            (self.codes, entry.code),
            (self.job_ids, entry.job_id),
            (self.video_ids, entry.video_id),
        )
        age = entry.age(now)
        return (
            all(not wanted or value in wanted for wanted, value in named)
            and (self.older_than is None or age >= self.older_than)
            and (self.newer_than is None or age <= self.newer_than)
        )


def read(delivery: Delivery) -> Entry:
    """What lies on the dead-letter subscription; never raises, for the console must be able to show anything."""
    if "envelope" not in delivery.attributes:
        return _read_forwarded(delivery)
    try:
        letter = parse_dead_letter(delivery.data)
        return _read_envelope(delivery, letter, letter.original.data)
    except (DeadLetterUnreadable, ValueError) as exc:
        return _unreadable(delivery, str(exc))


def fold(deliveries: Iterable[Delivery]) -> tuple[Entry, ...]:
    """One entry an id, its copies together, the oldest failure first."""
    entries: dict[str, Entry] = {}
    for entry in map(read, deliveries):
        known = entries.get(entry.dead_letter_id)
        copies = (*known.copies, *entry.copies) if known else entry.copies
        entries[entry.dead_letter_id] = replace(known or entry, copies=copies)
    return tuple(sorted(entries.values(), key=lambda entry: (entry.failed_at, entry.dead_letter_id)))


def histogram(entries: Iterable[Entry]) -> dict[str, int]:
    """Code -> dead letters, the most frequent first."""
    return dict(Counter(entry.code for entry in entries).most_common())


def without_forwarding(attributes: Mapping[str, str]) -> dict[str, str]:
    """The attributes that the publisher gave the message."""
    return {name: value for name, value in attributes.items() if not name.startswith(FORWARDING_PREFIX)}


def _read_envelope(delivery: Delivery, letter: DeadLetter, data: bytes | None) -> Entry:
    return Entry(
        dead_letter_id=letter.dead_letter_id,
        origin=Origin.WORKER,
        code=str(getattr(letter.code, "value", letter.code)),
        message=letter.message,
        violations=letter.violations,
        job_id=delivery.attributes.get("job_id"),
        video_id=delivery.attributes.get("video_id"),
        run=letter.run,
        attempts=letter.attempts,
        failed_at=letter.failed_at,
        data=data,
        attributes=without_forwarding(letter.original.attributes),
        copies=(delivery,),
    )


def _read_forwarded(delivery: Delivery) -> Entry:
    identity, echo = _identify(delivery.data)
    run = _number(delivery.attributes.get("run"))
    attempts = _number(delivery.attributes.get(f"{FORWARDING_PREFIX}DeliveryCount"))
    return Entry(
        dead_letter_id=dead_letter_id(identity, run=run, code=ErrorCode.ATTEMPTS_EXHAUSTED),
        origin=Origin.POLICY,
        code=ErrorCode.ATTEMPTS_EXHAUSTED.value,
        message=f"the subscription gave up after {attempts} deliveries, without a verdict of a worker",
        job_id=echo.job_id,
        video_id=echo.video_id,
        run=run,
        attempts=attempts,
        failed_at=delivery.publish_time,
        data=delivery.data,
        attributes=without_forwarding(delivery.attributes),
        ordering_key=delivery.ordering_key,
        copies=(delivery,),
    )


def _unreadable(delivery: Delivery, reason: str) -> Entry:
    return Entry(
        dead_letter_id=delivery.attributes.get("dead_letter_id") or message_identity(delivery.data),
        origin=Origin.UNREADABLE,
        code=delivery.attributes.get("code", ErrorCode.INTERNAL_ERROR.value),
        message=f"the envelope cannot be read: {reason}",
        job_id=delivery.attributes.get("job_id"),
        video_id=delivery.attributes.get("video_id"),
        run=0,
        attempts=0,
        failed_at=delivery.publish_time,
        data=None,
        attributes=delivery.attributes,
        copies=(delivery,),
    )


def _identify(data: bytes) -> tuple[str, JobEcho]:
    try:
        job, _ = parse_job(data)
    except JobRejected as exc:
        return message_identity(data), exc.job
    return job_identity(job), job.echo()


def _number(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdecimal() else 0
