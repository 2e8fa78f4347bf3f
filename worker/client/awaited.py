"""Matching of completion events with an awaited job."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from schemas.codes import ErrorCode
from schemas.events import CompletedEvent, Event, FailedEvent
from schemas.ids import event_id, job_identity
from schemas.job import TranscriptionJob, encode_job, parse_job


@dataclass(frozen=True, kw_only=True)
class AwaitedJob:
    """A job whose end is awaited.

    Two requests may have one job id; the second one fails with `JOB_ID_CONFLICT` while the first goes on. The id of an
    event is a function of the request, so a reader that knows the request can match the event.
    """

    job_id: str
    identity: str | None = None
    """The request's identity; None where it is not known, or holds fields that this version does not know."""
    run: int = 0
    """Events of earlier runs, which come again with every redelivery, do not end the wait."""

    @classmethod
    def of(cls, job: TranscriptionJob | Mapping[str, Any] | str, run: int = 0) -> "AwaitedJob":
        """Read what is known of the job. Raises `schemas.job.JobRejected` for a mapping that is no job."""
        if isinstance(job, str):
            return cls(job_id=job, run=run)
        if isinstance(job, TranscriptionJob):
            return cls(job_id=job.job_id, identity=job_identity(job), run=run)
        parsed, unknown = parse_job(encode_job(job))
        return cls(job_id=parsed.job_id, identity=None if unknown else job_identity(parsed), run=run)

    def concerns(self, event: Event) -> bool:
        """Return False for events of other jobs, and for the end of another request with the same job id.

        Where only the id is known, a `JOB_ID_CONFLICT` counts as another's: the request that holds the id is not
        refused. A message that was no job has no request to compare; its failure counts as this job's.
        """
        if event.job.job_id != self.job_id:
            return False
        if not isinstance(event, CompletedEvent | FailedEvent):
            return True
        code = event.error.error_code if isinstance(event, FailedEvent) else None
        if code in (ErrorCode.INVALID_JOB, ErrorCode.UNSUPPORTED_SCHEMA_VERSION):
            return True
        if self.identity is None:
            return code != ErrorCode.JOB_ID_CONFLICT
        outcome = "failed" if isinstance(event, FailedEvent) else "completed"
        ours = event_id(self.identity, run=event.run, event_type=event.event_type, outcome=outcome)
        return event.event_id == ours

    def ends_with(self, event: Event) -> bool:
        """Return True for the event that says how the job ended."""
        return isinstance(event, CompletedEvent | FailedEvent) and event.run >= self.run and self.concerns(event)
