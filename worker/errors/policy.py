"""The classes of errors. The class of an error is the policy, its code is part of the contract.

| class         | whose fault                     | the job                        | the worker                       |
| ------------- | ------------------------------- | ------------------------------ | -------------------------------- |
| `JobFault`    | the job's: it would fail again  | dead letter at once            | goes on                          |
| `Retryable`   | unknown: a later try may succeed | one attempt counted, nack      | goes on                          |
| `WorkerFault` | this worker's                   | nothing counted, nack          | intake stops until a probe works |
| `ServiceDown` | a service's                     | nothing counted, held or nack  | jobs that need the service wait  |
| `Deferred`    | none: another worker has it     | nothing counted, nack          | goes on                          |
| `Fatal`       | the deployment's                | nothing counted, nack          | exits with status 1              |

Every concrete error belongs to exactly one of them. `Undiagnosed` errors of an adapter say only which call failed:
`worker.core.delivery.fitness` probes the resource and replaces them before anything is decided. Exceptions that are no
`WorkerError` are diagnosed likewise: an operating system that is out of something is a `WorkerFault`, everything else
is a defect of the worker's code and `Retryable`. Facts are attributes and the class builds the message; no caller
parses one. `docs/whose-fault.md` has the matrix of every error and what follows.
"""

from typing import ClassVar

from schemas.codes import ErrorCode


class WorkerError(Exception):
    """Base of every error the worker raises on purpose.

    `code` goes into events and dead letters; `suggested_action` tells an operator what to do next.
    """

    code: ClassVar[ErrorCode] = ErrorCode.INTERNAL_ERROR
    suggested_action: ClassVar[str] = "look at the worker's log for this job_id"


class JobFault(WorkerError):
    """The same job would fail again on any worker: dead-letter it without another attempt."""


class Retryable(WorkerError):
    """A later attempt may succeed: count one attempt, until the job's attempts are used up."""


class WorkerFault(WorkerError):
    """This worker cannot work, whatever the job: count nothing, stop the intake and probe `part` until it works.

    `part` names what is broken as health shows it: a setting (`TEMP_DIR`), a bucket (`gs://bucket`), a topic's path.
    """

    code = ErrorCode.WORKER_UNFIT
    part: str


class ServiceDown(WorkerError):
    """A service does not work for anyone at the moment: count nothing and wait. `part` names the service or bucket."""

    part: str


class Deferred(WorkerError):
    """No failure: another worker has the job, or there is no room for it now. Give it back and count nothing."""


class Fatal(WorkerError):
    """The worker must stop: what it was deployed with does not exist or is refused."""


class Undiagnosed(WorkerError):
    """A call to `resource` failed, and the error alone does not say whose fault that is.

    Decides nothing by itself: a probe of `resource` does. `refused`: the service answered and said no (401, 403, 404),
    rather than not answering.
    """

    resource: str
    """A bucket (`gs://bucket`) or the full path of a topic."""
    operation: str
    refused: bool
    otherwise: WorkerError | None = None
    """The verdict where `resource` works, or is none that this worker must be able to use."""

    def verdict(self) -> WorkerError:
        """Return `otherwise`, or the `Retryable` for a call that failed although its resource works."""
        return self.otherwise or CallFailed.of(self)


class CallFailed(Retryable):
    """One call to Cloud Storage or Pub/Sub failed although a probe of its bucket or topic works."""

    code = ErrorCode.STORAGE_SERVICE_ERROR
    suggested_action = "replay; if it repeats, look at Google Cloud's status page"

    @classmethod
    def of(cls, error: Undiagnosed) -> "CallFailed":
        """Return the verdict on that call, with its message and cause."""
        failed = cls(str(error))
        failed.__cause__ = error
        return failed


class PaidServiceError(WorkerError):
    """A service that is paid by the request gave no transcript."""

    wasted_requests: int = 0
    """Requests that the service may bill all the same."""
