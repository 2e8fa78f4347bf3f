"""Exceptions of the client library and the network, and their translation into the worker's errors."""

from collections.abc import Iterator
from contextlib import contextmanager

import requests.exceptions
import urllib3.exceptions
from google.api_core import exceptions as google_errors
from google.auth import exceptions as auth_errors
from google.cloud.storage import exceptions as storage_errors

from worker.adapters.gcs.partial_file import DamagedDownload
from worker.errors import ObjectForbidden, ObjectNotFound, PreconditionFailed, StorageServiceError
from worker.ports import ObjectRef

VENDOR_ERRORS = (
    google_errors.GoogleAPICallError,
    auth_errors.GoogleAuthError,
    storage_errors.InvalidResponse,
    storage_errors.DataCorruption,
    requests.exceptions.RequestException,
    urllib3.exceptions.HTTPError,
    ConnectionError,
    DamagedDownload,
)


MOST_REASON_CHARACTERS = 500


@contextmanager
def translated(operation: str, ref: ObjectRef, if_generation: int | None) -> Iterator[None]:
    """Raise our errors instead of theirs."""
    try:
        yield
    except google_errors.NotFound as exc:
        raise ObjectNotFound(ref.uri, operation) from exc
    except (google_errors.Forbidden, google_errors.Unauthorized) as exc:
        raise ObjectForbidden(operation, ref.uri, exc.message[:MOST_REASON_CHARACTERS]) from exc
    except auth_errors.GoogleAuthError as exc:
        # After a 401 the client renews its credentials; that these are refused too is the same answer.
        if exc.retryable:
            raise StorageServiceError(operation, ref.uri, _described(exc)) from exc
        raise ObjectForbidden(operation, ref.uri, _described(exc)) from exc
    except google_errors.PreconditionFailed as exc:
        raise PreconditionFailed(ref.uri, if_generation) from exc
    except VENDOR_ERRORS as exc:
        raise StorageServiceError(operation, ref.uri, _described(exc)) from exc


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:MOST_REASON_CHARACTERS]


def is_transient(error: BaseException) -> bool:
    """Return True if the same request may succeed a moment later."""
    match error:
        case google_errors.GoogleAPICallError():
            return error.code is None or error.code in {408, 429} or error.code >= 500  # noqa: PLR2004 - HTTP's numbers
        case auth_errors.GoogleAuthError():
            return bool(error.retryable)
        case _:
            return isinstance(error, VENDOR_ERRORS)
