"""The envelope of a message that the worker gives up on, for the dead-letter topic (contract, section 6)."""

import base64
from collections.abc import Mapping
from datetime import datetime

from pydantic import ValidationError

from schemas.job import JobEcho
from schemas.wire import Count, ErrorCodeOrNewer, UtcTime, WireModel, load_object, violations

MAX_ORIGINAL_BYTES = 6_500_000
"""A larger message, with 100 attributes of the longest, may not fit into an envelope, whose own limit is Pub/Sub's
10 MB; it is no job anyway."""


class OriginalMessage(WireModel):
    """The message as it was delivered."""

    data_base64: str | None
    """Null if the data is larger than an envelope can carry."""
    attributes: dict[str, str]
    message_id: str
    publish_time: UtcTime
    subscription: str

    @classmethod
    def of(
        cls, data: bytes, attributes: Mapping[str, str], *, message_id: str, publish_time: datetime, subscription: str
    ) -> "OriginalMessage":
        """Wrap a delivery's data and facts."""
        fits = len(data) <= MAX_ORIGINAL_BYTES
        return cls(
            data_base64=base64.b64encode(data).decode() if fits else None,
            attributes=dict(attributes),
            message_id=message_id,
            publish_time=publish_time,
            subscription=subscription,
        )

    @property
    def data(self) -> bytes | None:
        """Return the message's bytes, or None if they were too large to keep. Raises `ValueError` on bad base64."""
        return None if self.data_base64 is None else base64.b64decode(self.data_base64, validate=True)


class DeadLetter(WireModel):
    """A job that the worker gave up on, with everything that a replay needs."""

    schema_version: int = 1
    dead_letter_id: str
    run: Count
    code: ErrorCodeOrNewer
    message: str
    violations: tuple[str, ...] = ()
    original: OriginalMessage
    attempts: Count
    crashes: Count
    first_seen: UtcTime
    failed_at: UtcTime
    worker: str
    traceback_digest: str | None = None
    suggested_action: str | None = None
    """The next step for an operator, as in the job's `failed` event; null in letters of older workers."""


class DeadLetterUnreadable(ValueError):
    """The message is not a dead-letter envelope; the text is the reason."""


def encode_dead_letter(letter: DeadLetter) -> bytes:
    """Return the envelope as message data."""
    return letter.model_dump_json().encode()


def dead_letter_attributes(letter: DeadLetter, job: JobEcho) -> dict[str, str]:
    """Return the envelope's message attributes; ids that could not be read are left out."""
    attributes = {
        "envelope": "1",
        "dead_letter_id": letter.dead_letter_id,
        "code": str(letter.code),
        "job_id": job.job_id,
        "video_id": job.video_id,
    }
    return {name: value for name, value in attributes.items() if value is not None}


def parse_dead_letter(data: bytes) -> DeadLetter:
    """Parse an envelope's message data. Raises `DeadLetterUnreadable`."""
    try:
        return DeadLetter.model_validate(load_object(data))
    except ValidationError as exc:
        raise DeadLetterUnreadable("; ".join(violations(exc))) from exc
    except ValueError as exc:
        raise DeadLetterUnreadable(str(exc)) from exc
