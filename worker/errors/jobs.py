"""Jobs that cannot be done by any worker."""

from datetime import datetime

from schemas.codes import ErrorCode
from worker.errors.policy import JobFault, Retryable

TOLD_VIOLATIONS = 5
"""Maximum number of violations in the error's message; the event and the dead letter list all of them."""


class InvalidJob(JobFault):
    """The message is not a job; `violations` lists every violation as `field: what is wrong (got value)`."""

    code = ErrorCode.INVALID_JOB
    suggested_action = "correct the fields named in violations and publish the job again"

    def __init__(self, violations: tuple[str, ...]) -> None:
        self.violations = violations
        told, others = violations[:TOLD_VIOLATIONS], len(violations) - TOLD_VIOLATIONS
        more = f"; and {others} more violations" if others > 0 else ""
        super().__init__(f"not a valid job: {'; '.join(told)}{more}")


class UnsupportedSchemaVersion(JobFault):
    """The job was written for a newer contract than this worker knows."""

    code = ErrorCode.UNSUPPORTED_SCHEMA_VERSION
    suggested_action = "deploy a worker that knows this schema_version, then replay"

    def __init__(self, version: int, newest: int) -> None:
        self.version, self.newest = version, newest
        super().__init__(f"schema_version {version} is newer than {newest}, the newest this worker knows")


class JobIdConflict(JobFault):
    """Another request already used this job id."""

    code = ErrorCode.JOB_ID_CONFLICT
    suggested_action = "publish the job under a job_id of its own"

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(f"job_id {job_id!r} was used before for another request")


class AudioNotFound(JobFault):
    """The audio object, or the pinned generation of it, does not exist."""

    code = ErrorCode.AUDIO_NOT_FOUND
    suggested_action = "upload the audio, then replay the job"

    def __init__(self, uri: str, generation: int | None = None) -> None:
        self.uri, self.generation = uri, generation
        super().__init__(f"no object at {uri}" + (f" with generation {generation}" if generation else ""))


class AudioReplaced(Retryable):
    """The audio object was replaced between its lookup and its download, each time."""

    code = ErrorCode.STORAGE_SERVICE_ERROR
    suggested_action = "stop overwriting the object while it is transcribed, or pin its generation; then replay"

    def __init__(self, uri: str, looks: int) -> None:
        self.uri, self.looks = uri, looks
        super().__init__(f"{uri} was replaced while it was fetched, {looks} times in a row")


class AudioForbidden(JobFault):
    """The worker may not read that bucket, by its settings or by IAM."""

    code = ErrorCode.AUDIO_FORBIDDEN
    suggested_action = "grant the worker's service account access to the bucket, or list it in INPUT_BUCKETS"

    def __init__(self, uri: str, reason: str) -> None:
        self.uri, self.reason = uri, reason
        super().__init__(f"may not read {uri}: {reason}")


class AudioTooLarge(JobFault):
    """The object is larger than `MAX_FILE_SIZE_GB`; it was not downloaded."""

    code = ErrorCode.AUDIO_TOO_LARGE
    suggested_action = "publish smaller audio (16 kHz mono is enough) or raise MAX_FILE_SIZE_GB"

    def __init__(self, size_bytes: int, limit_bytes: int, *, unpacked: bool = False) -> None:
        self.size_bytes, self.limit_bytes = size_bytes, limit_bytes
        size = f"unpacks to at least {size_bytes} bytes" if unpacked else f"has {size_bytes} bytes"
        super().__init__(f"the audio object {size}, the limit is {limit_bytes}")


class AudioTooLong(JobFault):
    """The audio is longer than `MAX_AUDIO_HOURS`."""

    code = ErrorCode.AUDIO_TOO_LONG
    suggested_action = "split the audio or raise MAX_AUDIO_HOURS"

    def __init__(self, seconds: float, limit_seconds: float) -> None:
        self.seconds, self.limit_seconds = seconds, limit_seconds
        super().__init__(f"the audio is at least {seconds:.0f} s long, the limit is {limit_seconds:.0f} s")


class AudioUndecodable(JobFault):
    """No audio can be decoded from the object: empty, not media, no audio track, or refused as hostile."""

    code = ErrorCode.AUDIO_UNDECODABLE
    suggested_action = "play the file locally; publish WAV, FLAC, MP3, AAC/MP4, Opus/Ogg or WebM audio (docs/media.md)"

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the audio cannot be decoded: {reason}")


class DeliveriesExhausted(JobFault):
    """The subscription's own policy gave the job up: no worker reached a verdict on any of its deliveries."""

    code = ErrorCode.ATTEMPTS_EXHAUSTED
    suggested_action = "look for out-of-memory kills in the platform's log, then replay"

    def __init__(self, deliveries: int) -> None:
        self.deliveries = deliveries
        counted = f"{deliveries} deliveries" if deliveries else "deliveries it did not count"
        super().__init__(f"the subscription gave up after {counted}, without a verdict of a worker")


class AttemptsExhausted(JobFault):
    """Workers died on this job without a verdict, or it broke them, too many times: `reason` is the last fault."""

    code = ErrorCode.ATTEMPTS_EXHAUSTED
    suggested_action = "look at the reason, or for out-of-memory kills in the platform's log, then replay"

    def __init__(self, crashes: int, limit: int, reason: str = "") -> None:
        self.crashes, self.limit, self.reason = crashes, limit, reason
        counted = f"{crashes} starts of this job ended without a verdict, the limit is {limit}"
        super().__init__(f"{counted}; the last: {reason}" if reason else counted)


class JobExpired(JobFault):
    """The job was delivered after its `expires_at`, and no chunk of it was finished by then."""

    code = ErrorCode.EXPIRED
    suggested_action = "publish it again with a later expires_at and the next run; or replay with --set expires_at=null"

    def __init__(self, expires_at: datetime, seconds_late: float) -> None:
        self.expires_at, self.seconds_late = expires_at, seconds_late
        super().__init__(f"the job expired at {expires_at.isoformat()}, {seconds_late:.0f} s before it could be begun")
