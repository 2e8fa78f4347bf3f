"""Jobs whose deadline has passed are not begun."""

from datetime import datetime

from schemas.job import TranscriptionJob
from worker.core.jobs.state import JobStates
from worker.errors import JobExpired
from worker.ports import Delivery


async def refuse_expired(job: TranscriptionJob, delivery: Delivery, states: JobStates, now: datetime) -> None:
    """Raise `JobExpired` where the job's deadline has passed and nothing has been done for it yet.

    A job with a finished chunk, or one that a live worker has, counts as begun and is finished. `now` is this worker's
    wall clock; where it is behind the time at which Pub/Sub took the message, that time counts. A wall clock that is
    ahead makes jobs expire early by as much. Raises `StorageServiceError`.
    """
    if job.expires_at is None:
        return
    late = (max(now, delivery.publish_time) - job.expires_at).total_seconds()
    if late >= 0 and not await states.is_started(job.job_id):
        raise JobExpired(job.expires_at, late)
