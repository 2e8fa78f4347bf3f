"""The next step of an operator: the letter's own, or one by origin or code where no worker wrote any into it."""

from schemas.codes import ErrorCode
from worker import errors
from worker.core.dead_letters.entries import DeadLetterEntry, Origin

ENDS_OF_JOBS: tuple[type[errors.WorkerError], ...] = (
    errors.AttemptsExhausted,
    errors.AudioForbidden,
    errors.AudioNotFound,
    errors.AudioTooLarge,
    errors.AudioTooLong,
    errors.AudioUndecodable,
    errors.CallFailed,
    errors.DeepgramAuthError,
    errors.DeepgramQuotaError,
    errors.DeepgramUnavailable,
    errors.EngineFailure,
    errors.FallbackBudgetExhausted,
    errors.GpuMemoryError,
    errors.GpuNotAvailable,
    errors.InvalidJob,
    errors.JobExpired,
    errors.JobIdConflict,
    errors.ModelLoadingError,
    errors.TranscriptionTimeout,
    errors.UnsupportedSchemaVersion,
    errors.WorkerError,
)
"""One error of each code; where several share a code, the most general one."""

OF_ORIGIN = {
    Origin.STRAY: "find out who publishes to the dead-letter topic; replay it if it is a job, or drop it",
    Origin.UNREADABLE: "drop it; the export keeps its bytes",
}
OF_A_NEWER_WORKER = "read the reason; the console is older than the worker that wrote it"


def remedy_of(entry: DeadLetterEntry) -> str:
    """Return what to do about a dead letter."""
    if entry.origin in OF_ORIGIN:
        return OF_ORIGIN[entry.origin]
    return entry.suggested_action or remedy_of_code(entry.code)


def remedy_of_code(code: str) -> str:
    """Return what to do about failures of a code."""
    remedies = {error.code.value: error.suggested_action for error in ENDS_OF_JOBS}
    return remedies.get(code, OF_A_NEWER_WORKER)


def replay_options(code: str) -> tuple[str, ...]:
    """Return the options with which a replay of letters of the code does not fail again for the same reason."""
    return ("--set", "expires_at=null", "--execute") if code == ErrorCode.EXPIRED.value else ("--execute",)


def known_codes() -> list[str]:
    """Return every code that can end a job."""
    return [code.value for code in ErrorCode if code is not ErrorCode.WORKER_UNFIT]
