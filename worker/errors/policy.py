"""The classes of errors, and the errors of services, of this machine and of claims; `jobs` has those of jobs.

The class of an error is the policy, its code is part of the contract. Every concrete error belongs to exactly one of
these classes. `worker.core.delivery.fitness` replaces `Undiagnosed` errors before anything is decided, and exceptions
that are no `WorkerError`: an exhausted resource of the operating system is a `WorkerFault`, everything else is a defect
of the worker's code and counts as `Retryable`. The class builds the message; facts that callers need are attributes,
and messages are never parsed. `docs/whose-fault.md` has the matrix of all errors and consequences.
"""

from typing import ClassVar, Self

from schemas.codes import ErrorCode


class WorkerError(Exception):
    """Base of every error that the worker raises on purpose.

    `code` goes into events and dead letters; `suggested_action` is the next step for an operator.
    """

    code: ClassVar[ErrorCode] = ErrorCode.INTERNAL_ERROR
    suggested_action: ClassVar[str] = "look at the worker's log for this job_id"

    def because_of(self, cause: BaseException) -> Self:
        """Set the cause, as `raise ... from` does; return the error."""
        self.__cause__ = cause
        return self

    def without_frames(self) -> Self:
        """Drop traceback and causes, whose frames hold the samples of a chunk; return the error, which may be kept."""
        self.__cause__ = self.__context__ = None
        return self.with_traceback(None)


class JobFault(WorkerError):
    """The same job would fail again on any worker: dead-letter it without another attempt."""


class Retryable(WorkerError):
    """A later attempt may succeed: count one attempt, until the job's attempts are used up."""


class WorkerFault(WorkerError):
    """This worker cannot work, whatever the job: count nothing, stop the intake and probe `part` until it works.

    `part` is the broken part's name in `/health`: a setting (`TEMP_DIR`), a bucket (`gs://bucket`), a topic's path.
    """

    code = ErrorCode.WORKER_UNFIT
    part: str


class ServiceDown(WorkerError):
    """A service is down: count nothing and wait. `part` names the service or bucket."""

    part: str


class Deferred(WorkerError):
    """No failure: another worker has the job, or there is no room for it now. Nack and count nothing."""


class Fatal(WorkerError):
    """The worker must exit: something that its deployment needs does not exist or is refused."""


class Undiagnosed(WorkerError):
    """A call to `resource` failed. The error has no policy of its own: a probe of `resource` decides whose fault it is.

    `refused`: the service answered with a refusal (401, 403, 404), as opposed to not answering.
    """

    resource: str
    """A bucket (`gs://bucket`) or the full path of a topic."""
    operation: str
    refused: bool
    otherwise: WorkerError | None = None
    """Verdict if `resource` works, or is not a resource that this worker must be able to use."""

    def verdict(self) -> WorkerError:
        """Return `otherwise` if set, or else the `Retryable` for a call that failed although its resource works."""
        return self.otherwise or CallFailed(str(self)).because_of(self)


class CallFailed(Retryable):
    """One call to Cloud Storage or Pub/Sub failed although a probe of its bucket or topic works."""

    code = ErrorCode.STORAGE_SERVICE_ERROR
    suggested_action = "replay; if it repeats, look at Google Cloud's status page"


class PaidServiceError(WorkerError):
    """A service that bills each request returned no transcript."""

    wasted_requests: int = 0
    """Number of requests that the service may bill although they failed."""


class StorageServiceError(Undiagnosed):
    """`operation` on `uri` failed after the adapter's own retries, or Cloud Storage could not be authenticated to."""

    code = ErrorCode.STORAGE_SERVICE_ERROR
    suggested_action = "check Cloud Storage's status and the bucket's permissions, then replay"
    refused = False

    def __init__(self, operation: str, uri: str, reason: str) -> None:
        self.operation, self.uri, self.reason = operation, uri, reason
        self.resource = bucket_of(uri)
        super().__init__(f"storage could not {operation} {uri}: {reason}")


class ObjectNotFound(Undiagnosed):
    """No such object, generation or bucket. Callers that know what the object is raise a better error."""

    code = ErrorCode.AUDIO_NOT_FOUND
    refused = True

    def __init__(self, uri: str, operation: str = "read") -> None:
        self.operation = operation
        self.resource = bucket_of(uri)
        super().__init__(f"no object at {uri}")


class ObjectForbidden(Undiagnosed):
    """The operation on the object is refused (401, 403). Callers raise a better error, as for `ObjectNotFound`."""

    code = ErrorCode.AUDIO_FORBIDDEN
    refused = True

    def __init__(self, operation: str, uri: str, reason: str = "") -> None:
        self.operation, self.reason = operation, reason
        self.resource = bucket_of(uri)
        super().__init__(f"no permission to {operation} {uri}" + (f": {reason}" if reason else ""))


class PreconditionFailed(Retryable):
    """Another writer was first: the object's generation is not the expected one."""

    def __init__(self, uri: str, expected_generation: int | None) -> None:
        super().__init__(f"{uri} is not at generation {expected_generation}")


class QueueServiceError(Undiagnosed):
    """`operation` failed at Pub/Sub after the adapter's own retries, or was refused (`refused`: 401, 403)."""

    suggested_action = "check Pub/Sub's status and the worker's permissions"

    def __init__(self, operation: str, resource: str, reason: str, *, refused: bool = False) -> None:
        self.operation, self.resource, self.reason, self.refused = operation, resource, reason, refused
        super().__init__(f"Pub/Sub could not {operation} {resource}: {reason}")


class MessageRefused(JobFault):
    """Pub/Sub will never take this message: too large, too many attributes, one of them too long."""

    suggested_action = "make the message smaller: fewer or shorter attributes, less data"

    def __init__(self, resource: str, reason: str) -> None:
        super().__init__(f"Pub/Sub refuses the message for {resource}: {reason}")


class QueueNotFound(Undiagnosed):
    """The topic does not exist, or was deleted under a running worker."""

    suggested_action = "create it (deploy/provision.sh) or correct the setting that names it"
    operation = "find"
    refused = True

    def __init__(self, resource: str) -> None:
        self.resource = resource
        super().__init__(f"no such Pub/Sub resource: {resource}")


class SubscriptionNotFound(Fatal):
    """The subscription does not exist, or was deleted under a running worker: there is nothing to work on."""

    suggested_action = "create it (deploy/provision.sh) or correct the setting that names it"

    def __init__(self, resource: str) -> None:
        super().__init__(f"no such Pub/Sub resource: {resource}")


class MachineFault(WorkerFault):
    """The operating system refuses what every job needs: disk, memory, file descriptors, processes."""

    suggested_action = "look at the instance: its disk, memory and limits"

    def __init__(self, part: str, reason: str) -> None:
        self.part = part
        super().__init__(f"{part}: {reason}")


class TempDirFull(MachineFault):
    """`TEMP_DIR` has no room for the audio of a job."""

    suggested_action = "free or enlarge TEMP_DIR; DOWNLOAD_ROOM_GB bounds what the worker itself puts there"

    def __init__(self, folder: str, needed_bytes: int, free_bytes: int) -> None:
        super().__init__("TEMP_DIR", f"{folder} has no room for audio of {needed_bytes} bytes ({free_bytes} are free)")


class ResourceRefused(WorkerFault):
    """A bucket or topic of this worker is missing, or its use is not granted."""

    suggested_action = "create it (deploy/provision.sh), grant the worker's account its role, or correct the setting"

    def __init__(self, part: str, reason: str) -> None:
        self.part = part
        super().__init__(f"{part}: {reason}")


class ResourceDown(ServiceDown):
    """Cloud Storage or Pub/Sub does not answer for this resource, nor to a probe."""

    code = ErrorCode.STORAGE_SERVICE_ERROR
    suggested_action = "wait; the worker goes on by itself. Google Cloud's status page lists outages"

    def __init__(self, part: str, reason: str) -> None:
        self.part = part
        super().__init__(f"{part}: {reason}")


class PartBroken(Deferred):
    """A part of this worker that the job needs is known not to work; the job has not tried it."""

    def __init__(self, fault: WorkerFault) -> None:
        super().__init__(str(fault))


class ParkingFull(Deferred):
    """Every parking place of this worker is taken."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"all {limit} parking places are taken")


class ClaimHeld(Deferred):
    """Another worker holds the claim on this job, or concluded the job just now."""

    def __init__(self, job_id: str, owner: str) -> None:
        super().__init__(f"job {job_id!r} is held by {owner}")


class ClaimLost(Deferred):
    """This worker lost its claim during the job: another worker has the job, or heartbeats failed."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"the claim on job {job_id!r} was lost")


class NoRoomForAudio(Deferred):
    """The audio of jobs in progress leaves no disk space for this job; another worker may have it."""

    def __init__(self, size_bytes: int, free_bytes: float) -> None:
        self.size_bytes, self.free_bytes = size_bytes, free_bytes
        super().__init__(f"the audio has {size_bytes} bytes, and room is left for {free_bytes:.0f}")


def bucket_of(uri: str) -> str:
    """Return `gs://bucket` of an object's URI."""
    return "gs://" + uri.removeprefix("gs://").split("/", 1)[0]
