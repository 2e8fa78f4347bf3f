"""From the bytes and attributes of a delivery to the job they ask for, or to what is wrong with them."""

import asyncio
import gc
import heapq
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from schemas.dead_letter import OriginalMessage
from schemas.ids import job_identity, message_identity
from schemas.job import NEWEST_SCHEMA_VERSION, JobRejected, TranscriptionJob, parse_job
from schemas.state import ResultMarker
from schemas.text import plain
from schemas.wire import shorten
from worker.core.jobs.reporting import Subject
from worker.errors import InvalidJob, JobFault, UnsupportedSchemaVersion
from worker.ports import Delivery

LARGE_BYTES = 64 * 1024
"""Above this a message is read in a thread: reading 1 MiB takes up to half a second."""

MOST_NAMES, MOST_OF_A_NAME = 20, 60
"""The most unknown fields that a log line names, and the most characters of each."""

RUN_DIGITS = 18
"""The longest run that fits every reader of an event, BigQuery's INT64 among them."""

Violations: TypeAlias = Callable[[TranscriptionJob], tuple[str, ...]]
Check: TypeAlias = Callable[[TranscriptionJob], None]


@dataclass(frozen=True, kw_only=True)
class JobMessage:
    """A delivery's message, read once.

    `job` is None where the message is no job; `fault` says what is wrong with the message or its attributes.
    """

    subject: Subject
    job: TranscriptionJob | None = None
    fault: JobFault | None = None
    unknown_fields: int = 0
    unknown_names: tuple[str, ...] = ()
    """The first `MOST_NAMES` of them, shortened."""
    is_replay: bool = False
    """The console published the message again, and counts the job's runs by its own dead letters."""

    def check_run(self, concluded: ResultMarker | None) -> None:
        """Raise `InvalidJob` where a publisher asks for a run more than one above the last concluded one.

        The console's replays are not held to that: it also counts letters of messages that left no result, because
        they were no job until an edit made them one.
        """
        if self.is_replay:
            return
        most = 0 if concluded is None else concluded.run + 1
        if self.subject.run > most:
            last = "no run of the job has ended" if concluded is None else f"its last run is {concluded.run}"
            raise InvalidJob((f"attribute run: must be at most {most}, for {last} (got {self.subject.run})",))


async def read_message(delivery: Delivery, violations: Violations, check: Check) -> JobMessage:
    """Read the message, and hold the job to what the settings allow: `violations` of it, then `check`, which raises.

    Large messages are read in a thread, so that leases and heartbeats are not held up. Raises nothing of its own.
    """
    if len(delivery.data) <= LARGE_BYTES:
        return _read(delivery, violations, check)
    return await asyncio.to_thread(_read_large, delivery, violations, check)


def _read_large(delivery: Delivery, violations: Violations, check: Check) -> JobMessage:
    # A million small objects set off full garbage collections, each of which stops every thread for 0.1 to 0.3 s.
    with collections_paused():
        return _read(delivery, violations, check)


def _read(delivery: Delivery, violations: Violations, check: Check) -> JobMessage:
    run, run_violations = _run_of(delivery.attributes)
    try:
        job, unknown = parse_job(delivery.data)
    except JobRejected as exc:
        subject = Subject(echo=exc.job, identity=message_identity(delivery.data), run=run)
        if exc.unsupported_version is not None:
            return JobMessage(
                subject=subject, fault=UnsupportedSchemaVersion(exc.unsupported_version, NEWEST_SCHEMA_VERSION)
            )
        return JobMessage(subject=subject, fault=InvalidJob(exc.violations))
    return JobMessage(
        subject=Subject(echo=job.echo(), identity=job_identity(job), run=run),
        job=job,
        fault=_fault(job, run_violations + violations(job), check),
        unknown_fields=len(unknown),
        unknown_names=tuple(plain(name, MOST_OF_A_NAME) for name in heapq.nsmallest(MOST_NAMES, unknown)),
        is_replay="replay_of" in delivery.attributes,
    )


def _fault(job: TranscriptionJob, violations: tuple[str, ...], check: Check) -> JobFault | None:
    if violations:
        return InvalidJob(violations)
    try:
        check(job)
    except JobFault as fault:
        return fault
    return None


def _run_of(attributes: Mapping[str, str]) -> tuple[int, tuple[str, ...]]:
    """Return the run that is asked for, 0 where the attribute is wrong, and what is wrong with it."""
    text = attributes.get("run", "0")
    if text.isascii() and text.isdecimal() and len(text) <= RUN_DIGITS:
        return int(text), ()
    return 0, (
        f"attribute run: must be a whole number from 0 on, of at most {RUN_DIGITS} digits (got {shorten(text)})",
    )


def original_of(delivery: Delivery, subscription: str) -> OriginalMessage:
    """Return the message as a dead letter keeps it."""
    return OriginalMessage.of(
        delivery.data,
        delivery.attributes,
        message_id=delivery.message_id,
        publish_time=delivery.publish_time,
        subscription=subscription,
    )


class _Pauses:
    """The number of threads that want no collection, and whether it was on before the first."""

    lock = threading.Lock()
    count = 0
    was_enabled = False


@contextmanager
def collections_paused() -> Iterator[None]:
    """Let no cyclic garbage collection start for the length of the block; blocks of several threads may overlap."""
    with _Pauses.lock:
        if _Pauses.count == 0:
            _Pauses.was_enabled = gc.isenabled()
            gc.disable()
        _Pauses.count += 1
    try:
        yield
    finally:
        with _Pauses.lock:
            _Pauses.count -= 1
            if _Pauses.count == 0 and _Pauses.was_enabled:
                gc.enable()
