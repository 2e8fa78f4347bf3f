"""Errors in words: what happened, what to do about it, and the exit code."""

import errno
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from schemas.job import JobRejected
from worker.commands.console import EXIT_FAILED, EXIT_USAGE
from worker.errors import (
    GpuNotAvailable,
    InvalidJob,
    ModelLoadingError,
    ObjectForbidden,
    ObjectNotFound,
    QueueServiceError,
    StorageServiceError,
    WorkerError,
)

SIGN_IN = "sign in with: gcloud auth application-default login"
USE_A_CPU = "set PARAKEET_DEVICE=cpu to use the CPU, slowly"
STATUS_PAGE = "check the network, and https://status.cloud.google.com"
MOST_REASON_CHARACTERS = 200
OWN = ("worker.", "schemas.")
ADVICE = {
    errno.ENOSPC: "free some, or choose another folder (for scratch files: TEMP_DIR)",
    errno.EDQUOT: "free some, or choose another folder (for scratch files: TEMP_DIR)",
    errno.EISDIR: "name a file",
    errno.EACCES: "choose another place, or change its permissions",
    errno.EPERM: "choose another place, or change its permissions",
    errno.EROFS: "choose another place",
    errno.EADDRINUSE: "choose another port",
    errno.EMFILE: "raise the limit (ulimit -n)",
}


@dataclass(frozen=True, kw_only=True)
class CommandFailure:
    """The words for an error, and the exit code that it ends a command with."""

    message: str
    code: int = EXIT_FAILED
    is_defect: bool = False
    """The program is wrong, not its surroundings."""


def failure_of(error: BaseException) -> CommandFailure:
    """Return the words for the error and the exit code."""
    if isinstance(error, BaseExceptionGroup):
        return failure_of(error.exceptions[0])
    if isinstance(error, JobRejected):
        return CommandFailure(message="not a valid job: " + "; ".join(error.violations), code=EXIT_USAGE)
    if words := _google(error) or _known(error):
        return CommandFailure(message=words)
    return CommandFailure(message=_unexpected(error), is_defect=True)


def _known(error: BaseException) -> str:
    """Return words for an error of ours, of the machine or of the installation; nothing for others."""
    words = ""
    match error:
        case WorkerError():
            words = _worker(error)
        case ModuleNotFoundError() if not (error.name or "worker").startswith(("worker", "schemas")):
            words = f"{error.name} is not installed: pip install 'klipstream-worker[worker,parakeet]', or make install"
        case OSError():
            words = _system(error)
        case HTTPException() | UnicodeError():
            words = f"not understood: {error}"
        case MemoryError():
            words = "this machine has too little memory for that"
        case _ if type(error).__module__.startswith(OWN):
            words = str(error)
    return words


def _worker(error: WorkerError) -> str:
    """Return the error with advice for a person at a terminal; the class's own is for a job in the queue."""
    grant = f"grant it to the account that is signed in, or {SIGN_IN}"
    match error:
        case GpuNotAvailable():
            words = str(error) if "PARAKEET_DEVICE" in str(error) else f"{error}; {USE_A_CPU}"
        case ModelLoadingError():
            words = str(error) if "PARAKEET_MODEL_NAME" in str(error) else f"{error}; correct PARAKEET_MODEL_NAME"
        case InvalidJob():
            words = str(error)
        case ObjectNotFound(operation="list" | "write" | "upload"):
            words = f"there is no bucket {error.resource}: correct its name, or create it (deploy/provision.sh)"
        case ObjectNotFound():
            words = f"{error}: correct the name of the bucket or of the object"
        case ObjectForbidden() | QueueServiceError(refused=True):
            words = f"{_short(str(error))}: {grant}"
        case StorageServiceError():
            words = f"Cloud Storage could not {error.operation} {error.uri} ({_short(error.reason)}): {STATUS_PAGE}"
        case QueueServiceError():
            words = f"Pub/Sub could not {error.operation} {error.resource} ({_short(error.reason)}): {STATUS_PAGE}"
        case _:
            words = f"{error}: {error.suggested_action}"
    return words


def _google(error: BaseException) -> str:
    """Return words for an exception of Google's clients, or one caused by missing credentials; nothing for others."""
    for each in _causes(error):
        if "google.auth.exceptions.GoogleAuthError" in _names(each):
            return _credentials(each)
    names = _names(error)
    if "google.api_core.exceptions.GoogleAPIError" not in names:
        return ""
    kinds = {name.rpartition(".")[2] for name in names}
    said = _short(str(getattr(error, "message", error))).rstrip(".")
    if "NotFound" in kinds:
        return (
            f"not found: {said}: create it (deploy/provision.sh), or correct PROJECT_ID and the setting that names it"
        )
    if kinds & {"Forbidden", "Unauthorized"}:
        return f"no permission: {said}: grant it to the account that is signed in, or {SIGN_IN}"
    if kinds & {"ServerError", "RetryError"}:
        return f"Google Cloud did not answer ({said}): {STATUS_PAGE}"
    return f"Google Cloud refuses this: {said}"


def _credentials(error: BaseException) -> str:
    kind, said = type(error).__name__, str(error)
    if kind == "DefaultCredentialsError" and "were not found" in said:
        return f"no credentials for Google Cloud: {SIGN_IN}"
    if kind == "TransportError":
        return f"Google's sign-in server does not answer ({_short(said)}): {STATUS_PAGE}"
    return f"the credentials for Google Cloud are of no use ({_short(said)}): {SIGN_IN}"


def _system(error: OSError) -> str:
    where = f"{_text(error.filename)}: " if isinstance(error.filename, str | bytes | Path) else ""
    words = where + _short(error.strerror or str(error) or type(error).__name__)
    advice = ADVICE.get(error.errno or 0)
    return f"{words}; {advice}" if advice else words


def _text(name: str | bytes | Path) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def _unexpected(error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/worker/" in frame.filename]
    at = f" at worker/{frames[-1].filename.rpartition('/worker/')[2]}:{frames[-1].lineno}" if frames else ""
    what = f"{type(error).__name__}{at}: {_short(str(error))}"
    return f"unexpected {what}; --debug shows the traceback: please report it"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _names(error: BaseException) -> set[str]:
    return {f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__}


def _short(text: str) -> str:
    """Return the text in one line of bearable length."""
    line = " ".join(text.split())
    return line if len(line) <= MOST_REASON_CHARACTERS else line[: MOST_REASON_CHARACTERS - 1] + "…"
