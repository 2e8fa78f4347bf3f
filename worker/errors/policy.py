"""The classes of errors. The class of an error is the policy, its code is part of the contract.

Every concrete error belongs to exactly one of these classes. `worker.core.delivery.fitness` replaces `Undiagnosed`
errors before anything is decided, and exceptions that are no `WorkerError`: an exhausted resource of the operating
system is a `WorkerFault`, everything else is a defect of the worker's code and counts as `Retryable`. The class builds
the message; facts that callers need are attributes, and messages are never parsed. `docs/whose-fault.md` has the matrix
of all errors and consequences.
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
