"""Names of things as pure functions of what they stand for, so that a second delivery makes the same ones.

Every id is a SHA-256 over a JSON list, cut to 32 hexadecimal digits. The list's first member says what kind of
thing it names, and JSON keeps its members apart, so no two different things share an id by their spelling.
"""

import hashlib
import json
import uuid

from schemas.codes import ErrorCode, EventType
from schemas.job import TranscriptionJob

_DIGITS = 32


def request_fingerprint(job: TranscriptionJob) -> str:
    """What was asked for: two jobs of one `job_id` conflict where this differs.

    Method, restrictions and echoed fields do not count; the language counts without its case.
    """
    outputs = [output.value for output in job.outputs]
    where = (job.video_id, job.audio_uri, job.audio_generation, job.output_uri_prefix)
    return _digest("request", *where, job.language.lower(), outputs)


def job_identity(job: TranscriptionJob) -> str:
    """What a job's events and dead letters are about: its id together with its request."""
    return _digest("job", job.job_id, request_fingerprint(job))


def message_identity(data: bytes) -> str:
    """The same for a message that is no job: its bytes."""
    return _digest("message", hashlib.sha256(data).hexdigest())


def event_id(identity: str, *, run: int, event_type: EventType, outcome: str) -> str:
    """The id by which subscribers drop duplicates.

    `identity` is `job_identity` or `message_identity`; `outcome` is `completed` or `failed`, for progress the count of
    chunks done.
    """
    return _digest("event", identity, run, event_type.value, outcome)


def dead_letter_id(identity: str, *, run: int, code: ErrorCode) -> str:
    """The id by which the console folds physical duplicates; also the failed event's `support_reference`."""
    return _digest("dead letter", identity, run, code.value)


def request_id(job_id: str) -> str:
    """The transcript's `metadata.request_id`, a UUID as in Deepgram's responses."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"klipstream:job:{job_id}"))


def _digest(*parts: str | int | list[str] | None) -> str:
    return hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()[:_DIGITS]
