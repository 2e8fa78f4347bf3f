"""Failed calls to Cloud Storage and Pub/Sub."""

from schemas.codes import ErrorCode
from worker.errors.policy import Fatal, JobFault, Retryable, Undiagnosed


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
    """No such object, or not that generation of it, or no such bucket. Callers that know more raise a better error."""

    code = ErrorCode.AUDIO_NOT_FOUND
    refused = True

    def __init__(self, uri: str, operation: str = "read") -> None:
        self.uri, self.operation = uri, operation
        self.resource = bucket_of(uri)
        super().__init__(f"no object at {uri}")


class ObjectForbidden(Undiagnosed):
    """The operation on the object is refused (401, 403). Callers that know what the object is raise a better error."""

    code = ErrorCode.AUDIO_FORBIDDEN
    refused = True

    def __init__(self, operation: str, uri: str, reason: str = "") -> None:
        self.operation, self.uri, self.reason = operation, uri, reason
        self.resource = bucket_of(uri)
        super().__init__(f"no permission to {operation} {uri}" + (f": {reason}" if reason else ""))


class PreconditionFailed(Retryable):
    """Another writer was first: the object's generation is not the expected one. Callers that race expect it."""

    def __init__(self, uri: str, expected_generation: int | None) -> None:
        self.uri, self.expected_generation = uri, expected_generation
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
        self.resource, self.reason = resource, reason
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
        self.resource = resource
        super().__init__(f"no such Pub/Sub resource: {resource}")


def bucket_of(uri: str) -> str:
    """Return `gs://bucket` of an object's URI."""
    return "gs://" + uri.removeprefix("gs://").split("/", 1)[0]
