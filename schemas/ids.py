"""Ids as pure functions of the things they name, so that a second delivery makes the same ids.

Every id is a SHA-256 over a JSON list, cut to 32 hexadecimal digits; the list begins with the kind of thing, so
different things never have the same input.
"""

import hashlib
import json
import uuid

from schemas.codes import Channels, ErrorCode, EventType
from schemas.job import TranscriptionJob

_DIGITS = 32


def request_fingerprint(job: TranscriptionJob) -> str:
    """Return the hash of the request: two jobs with one `job_id` conflict if their fingerprints differ.

    Method, restrictions and echoed fields are not part of it; the language is, regardless of case. Fields newer than
    the first version are part of it only where they are set.
    """
    outputs = [output.value for output in job.outputs]
    where = (job.video_id, job.audio_uri, job.audio_generation, job.output_uri_prefix)
    newer = [["keyterms", *job.keyterms]] if job.keyterms else []
    if job.channels is Channels.APART:
        newer.append(["channels", job.channels.value])
    return _digest("request", *where, job.language.lower(), outputs, *newer)


def job_identity(job: TranscriptionJob) -> str:
    """Return the identity of a job in its events and dead letters: its id together with its request."""
    return _digest("job", job.job_id, request_fingerprint(job))


def message_identity(data: bytes) -> str:
    """Return the identity of a message that is no job: the hash of its bytes."""
    return _digest("message", hashlib.sha256(data).hexdigest())


def event_id(identity: str, *, run: int, event_type: EventType, outcome: str) -> str:
    """Return the id by which subscribers drop duplicates.

    `identity` is `job_identity` or `message_identity`; `outcome` is `completed` or `failed`, for progress the number of
    finished chunks.
    """
    return _digest("event", identity, run, event_type.value, outcome)


def dead_letter_id(identity: str, *, run: int, code: ErrorCode) -> str:
    """Return the id by which the console groups duplicates; also the failed event's `support_reference`."""
    return _digest("dead letter", identity, run, code.value)


def request_id(job_id: str) -> str:
    """Return the transcript's `metadata.request_id`, a UUID as in Deepgram's responses."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"klipstream:job:{job_id}"))


def _digest(*parts: str | int | list[str] | None) -> str:
    return hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()[:_DIGITS]
