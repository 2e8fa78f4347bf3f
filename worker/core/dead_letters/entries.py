"""Pure functions that read, group, select and count dead letters.

The dead-letter topic carries the worker's own envelopes, which contain the failed message and the reason; messages that
the subscription's policy forwarded, which only the attributes that Pub/Sub adds identify; and what others publish
there. At-least-once delivery makes duplicates; messages of one id are one dead letter.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from enum import StrEnum

from schemas.codes import ErrorCode
from schemas.dead_letter import DeadLetter, DeadLetterUnreadable, parse_dead_letter
from schemas.ids import dead_letter_id, job_identity, message_identity
from schemas.job import JobEcho, JobRejected, parse_job
from worker.ports import Delivery

FORWARDING_PREFIX = "CloudPubSubDeadLetterSource"
"""Prefix of the attributes that Pub/Sub adds."""

MOST_OF_A_REASON = 300
LEAST_OF_AN_ID, SHORT_ID = 4, 8
"""Characters of an id that name a dead letter, and those that are shown."""
MOST_OF_A_NAME = 128
_MOST_DIGITS = 9


class Origin(StrEnum):
    """A worker, the subscription's policy, or a third party."""

    WORKER = "worker"
    POLICY = "policy"
    STRAY = "stray"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Facts:
    dead_letter_id: str
    origin: Origin
    code: str
    job_id: str | None
    video_id: str | None
    run: int
    attempts: int
    """Number of verdicts, or of deliveries if the policy forwarded the message; 0 if unknown."""
    failed_at: datetime
    suggested_action: str | None = None
    """The next step for an operator; None in letters of older workers and of other origins."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Letter(_Facts):
    """Content of one physical message; may be as large as the message."""

    message: str
    violations: tuple[str, ...] = ()
    data: bytes | None
    """The message that failed; None if it was not kept or cannot be read."""
    attributes: Mapping[str, str]
    """Attributes that the publisher set."""
    ordering_key: str = ""
    worker: str | None = None
    """The worker that gave the job up; it, `crashes` and `first_seen` are known from envelopes alone."""
    crashes: int | None = None
    first_seen: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadLetterEntry(_Facts):
    """A dead letter as the console keeps it in memory."""

    reason: str
    """The beginning of the message."""
    copies: tuple[str, ...]
    """Message ids."""

    def age(self, now: datetime) -> timedelta:
        """Return the time since the job failed."""
        return now - self.failed_at

    def is_named(self, text: str) -> bool:
        """Return True for the whole id, or its beginning of at least `LEAST_OF_AN_ID` characters."""
        return self.dead_letter_id == text or (len(text) >= LEAST_OF_AN_ID and self.dead_letter_id.startswith(text))


@dataclass(frozen=True, kw_only=True, slots=True)
class Forwarded:
    """A message that the subscription's policy gave up on."""

    original: Delivery
    """The delivered message, with the publisher's attributes and time and this delivery's ack id."""
    deliveries: int
    """Pub/Sub's own count of deliveries; 0 if unknown."""
    gave_up_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Selection of dead letters; an empty or None field does not restrict it."""

    ids: frozenset[str] = frozenset()
    """Ids, or beginnings of them."""
    codes: frozenset[str] = frozenset()
    job_ids: frozenset[str] = frozenset()
    video_ids: frozenset[str] = frozenset()
    older_than: timedelta | None = None
    newer_than: timedelta | None = None

    def matches(self, entry: DeadLetterEntry, now: datetime) -> bool:
        """Return True where all restrictions hold."""
        named = (
            (self.codes, entry.code),
            (self.job_ids, entry.job_id),
            (self.video_ids, entry.video_id),
        )
        age = entry.age(now)
        return (
            (not self.ids or any(map(entry.is_named, self.ids)))
            and all(not wanted or value in wanted for wanted, value in named)
            and (self.older_than is None or age >= self.older_than)
            and (self.newer_than is None or age <= self.newer_than)
        )


def is_forwarded(delivery: Delivery) -> bool:
    """Return True for a message that Pub/Sub itself forwarded; reads attributes only."""
    return any(name.startswith(FORWARDING_PREFIX) for name in delivery.attributes)


def forwarded(delivery: Delivery) -> Forwarded:
    """Return the message as it was before; unreadable facts keep the delivery's values."""
    attributes = delivery.attributes
    published = _moment(attributes.get(f"{FORWARDING_PREFIX}TopicPublishTime")) or delivery.publish_time
    original = replace(
        delivery,
        attributes=without_forwarding(attributes),
        publish_time=min(published, delivery.publish_time),
        delivery_attempt=None,
    )
    return Forwarded(
        original=original,
        deliveries=_number(attributes.get(f"{FORWARDING_PREFIX}DeliveryCount")),
        gave_up_at=delivery.publish_time,
    )


def read(delivery: Delivery) -> Letter:
    """Parse a message of the dead-letter subscription. Never raises: the console shows any message."""
    if is_forwarded(delivery):
        return _read_forwarded(forwarded(delivery))
    if "envelope" not in delivery.attributes:
        return _read_stray(delivery)
    try:
        letter = parse_dead_letter(delivery.data)
        if max(len(letter.dead_letter_id), len(str(letter.code))) > MOST_OF_A_NAME:
            return _unreadable(delivery, "dead_letter_id or code is longer than any of ours")
        return _read_envelope(delivery, letter, letter.original.data)
    except (DeadLetterUnreadable, ValueError) as exc:
        return _unreadable(delivery, str(exc))


def entry_of(delivery: Delivery) -> DeadLetterEntry:
    """Parse a message; return its facts."""
    letter = read(delivery)
    facts = {each.name: getattr(letter, each.name) for each in fields(_Facts)}
    facts["suggested_action"] = letter.suggested_action and letter.suggested_action[:MOST_OF_A_REASON]
    return DeadLetterEntry(**facts, reason=letter.message[:MOST_OF_A_REASON], copies=(delivery.message_id,))


def fold(entries: Iterable[DeadLetterEntry]) -> tuple[DeadLetterEntry, ...]:
    """Return one entry per id, with its copies, the oldest failure first. Envelopes take precedence."""
    folded: dict[str, DeadLetterEntry] = {}
    for entry in entries:
        known = folded.get(entry.dead_letter_id, entry)
        better = entry if entry.origin is Origin.WORKER and known.origin is not Origin.WORKER else known
        copies = (*known.copies, *entry.copies) if known is not entry else entry.copies
        folded[entry.dead_letter_id] = replace(better, copies=copies)
    return tuple(sorted(folded.values(), key=lambda entry: (entry.failed_at, entry.dead_letter_id)))


def short_ids(entries: Iterable[DeadLetterEntry]) -> dict[str, str]:
    """Return the beginning that is shown of each id: equally long for all, and different for different ids."""
    ids = {entry.dead_letter_id for entry in entries}
    length, longest = SHORT_ID, max(map(len, ids), default=0)
    while length < longest and len({each[:length] for each in ids}) < len(ids):
        length += LEAST_OF_AN_ID
    return {each: each[:length] for each in ids}


def named(entries: Iterable[DeadLetterEntry], text: str) -> list[DeadLetterEntry]:
    """Return the entries that the text may name; only one where it is a whole id."""
    found = [entry for entry in entries if entry.is_named(text)]
    return [entry for entry in found if entry.dead_letter_id == text] or found


def histogram(entries: Iterable[DeadLetterEntry]) -> dict[str, int]:
    """Return the number of dead letters by code, the most frequent first."""
    return dict(Counter(entry.code for entry in entries).most_common())


def without_forwarding(attributes: Mapping[str, str]) -> dict[str, str]:
    """Return the attributes that the publisher gave the message."""
    return {name: value for name, value in attributes.items() if not name.startswith(FORWARDING_PREFIX)}


def _read_envelope(delivery: Delivery, letter: DeadLetter, data: bytes | None) -> Letter:
    return Letter(
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
        worker=letter.worker,
        crashes=letter.crashes,
        first_seen=letter.first_seen,
        suggested_action=letter.suggested_action,
    )


def _read_forwarded(letter: Forwarded) -> Letter:
    original = letter.original
    identity, echo, code = _identify(original.data)
    run = _number(original.attributes.get("run"))
    counted = f"{letter.deliveries} deliveries" if letter.deliveries else "deliveries it did not count"
    return Letter(
        dead_letter_id=dead_letter_id(identity, run=run, code=code),
        origin=Origin.POLICY,
        code=code.value,
        message=f"the subscription gave up after {counted}, without a verdict of a worker",
        job_id=echo.job_id,
        video_id=echo.video_id,
        run=run,
        attempts=letter.deliveries,
        failed_at=letter.gave_up_at,
        data=original.data,
        attributes=original.attributes,
        ordering_key=original.ordering_key,
    )


def _read_stray(delivery: Delivery) -> Letter:
    identity, echo, _ = _identify(delivery.data)
    return Letter(
        dead_letter_id=dead_letter_id(identity, run=0, code=ErrorCode.INTERNAL_ERROR),
        origin=Origin.STRAY,
        code=ErrorCode.INTERNAL_ERROR.value,
        message="published straight to the dead-letter topic: by no worker of ours, and no subscription forwarded it",
        job_id=echo.job_id,
        video_id=echo.video_id,
        run=0,
        attempts=0,
        failed_at=delivery.publish_time,
        data=delivery.data,
        attributes=delivery.attributes,
        ordering_key=delivery.ordering_key,
    )


def _unreadable(delivery: Delivery, reason: str) -> Letter:
    return Letter(
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
    )


def _identify(data: bytes) -> tuple[str, JobEcho, ErrorCode]:
    """Return the identity, ids and code that a worker assigns when it adopts the message."""
    try:
        job, _ = parse_job(data)
    except JobRejected as exc:
        return message_identity(data), exc.job, exc.code
    return job_identity(job), job.echo(), ErrorCode.ATTEMPTS_EXHAUSTED


def _number(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS else 0


def _moment(text: str | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return moment if moment and moment.tzinfo else None
