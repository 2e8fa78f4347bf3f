"""Parakeet and Deepgram."""

from schemas.codes import ErrorCode
from worker.errors.policy import JobFault, PaidServiceError, Retryable, ServiceDown, WorkerError, WorkerFault


class EngineError(WorkerError):
    """Parakeet did not transcribe a window."""

    engine_seconds: float = 0.0
    """Engine time that the failed window used, in seconds."""


class GpuNotAvailable(EngineError, WorkerFault):
    """Parakeet was requested and cannot run: there is no GPU, or the inference process cannot be replaced."""

    code = ErrorCode.GPU_NOT_AVAILABLE
    suggested_action = "check ENABLE_GPU_TRANSCRIPTION and the GPU; or replay with force_method=deepgram"
    part = "engine"

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"Parakeet cannot run: {reason}")


class ParakeetDisabled(JobFault):
    """The job forces Parakeet, but the worker's settings or the job's own restrictions exclude it."""

    code = ErrorCode.GPU_NOT_AVAILABLE
    suggested_action = "replay with force_method=deepgram, or turn on ENABLE_GPU_TRANSCRIPTION"

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"Parakeet may not be used: {reason}")


class GpuMemoryError(EngineError, Retryable):
    """A batch did not fit into the GPU's memory, even at the smallest size."""

    code = ErrorCode.GPU_MEMORY_ERROR
    suggested_action = "lower GPU_BATCH_SIZE or raise GPU_MEMORY_LIMIT_GB"

    def __init__(self, batch_windows: int) -> None:
        self.batch_windows = batch_windows
        super().__init__(f"out of GPU memory with a batch of {batch_windows} window(s)")


class ModelLoadingError(WorkerFault):
    """The model could not be loaded; at start-up the worker exits with it."""

    code = ErrorCode.MODEL_LOADING_ERROR
    part = "engine"
    suggested_action = "check PARAKEET_MODEL_NAME: a hub name, a readable .nemo file, or a folder of safetensors"

    def __init__(self, model: str, reason: str) -> None:
        self.model, self.reason = model, reason
        super().__init__(f"cannot load the model {model!r}: {reason}")


class TranscriptionTimeout(PaidServiceError, EngineError, Retryable):
    """An engine did not answer in time."""

    code = ErrorCode.TRANSCRIPTION_TIMEOUT
    suggested_action = "replay; if it repeats, look at the engine's health"

    def __init__(self, engine: str, seconds: float) -> None:
        self.engine, self.seconds = engine, seconds
        super().__init__(f"{engine} gave no answer within {seconds:.0f} s")


class EngineFailure(EngineError, Retryable):
    """The inference process died or failed on this window, and so did a fresh process."""

    code = ErrorCode.TRANSCRIPTION_SERVICE_ERROR
    suggested_action = "replay; if it repeats, replay with force_method=deepgram"

    def __init__(self, engine: str, reason: str) -> None:
        self.engine, self.reason = engine, reason
        super().__init__(f"{engine} failed: {reason}")


class DeepgramDown(PaidServiceError, ServiceDown):
    """Deepgram serves no requests: they fail unbilled, or the circuit breaker is open.

    The subclasses are reasons that only the account's owner can remove.
    """

    code = ErrorCode.TRANSCRIPTION_FALLBACK_FAILED
    suggested_action = "wait: the jobs go on by themselves. Deepgram's status page lists outages"
    part = "Deepgram"

    def __init__(self, reason: str, what: str = "Deepgram is down") -> None:
        self.reason = reason
        super().__init__(f"{what}: {reason}")


class DeepgramQuotaError(DeepgramDown):
    """Deepgram refuses more requests: no credit (402), or too many requests (429) after the wait that it asked for."""

    code = ErrorCode.DEEPGRAM_QUOTA_ERROR
    suggested_action = "check the Deepgram project's balance and rate limit; the jobs then go on by themselves"

    def __init__(self, status: int, reason: str) -> None:
        self.status = status
        super().__init__(reason, f"Deepgram's quota is used up ({status})")


class DeepgramAuthError(DeepgramDown):
    """Deepgram does not accept the API key, or the key may not use the model (401, 403)."""

    code = ErrorCode.DEEPGRAM_AUTH_ERROR
    suggested_action = "set a valid DEEPGRAM_API_KEY that may use DEEPGRAM_MODEL; the jobs then go on by themselves"

    def __init__(self, status: int, reason: str) -> None:
        self.status = status
        super().__init__(reason, f"Deepgram refuses the API key ({status})")


class DeepgramRejected(PaidServiceError, JobFault):
    """Deepgram rejects this request for good: its audio or options are not acceptable (400, 413 to 415, 422)."""

    code = ErrorCode.TRANSCRIPTION_FALLBACK_FAILED
    suggested_action = "look at the reason; the audio or DEEPGRAM_MODEL does not suit Deepgram"

    def __init__(self, status: int, reason: str) -> None:
        self.status, self.reason = status, reason
        super().__init__(f"Deepgram rejects the request ({status}): {reason}")


class DeepgramUnavailable(PaidServiceError, Retryable):
    """One request failed although Deepgram served others at the same time, or so late that it may be billed."""

    code = ErrorCode.TRANSCRIPTION_FALLBACK_FAILED
    suggested_action = "check Deepgram's status page, then replay"

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"Deepgram did not transcribe: {reason}")


class DeepgramUnusable(PaidServiceError, Retryable):
    """Deepgram's answer to one billed request is not a transcript of its audio."""

    code = ErrorCode.TRANSCRIPTION_FALLBACK_FAILED
    suggested_action = "replay; if it repeats, send Deepgram's support the reason, or replay with force_method=parakeet"

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"Deepgram's answer is no transcript: {reason}")


class DeepgramNotConfigured(JobFault):
    """The job can only go to Deepgram, and this worker has no key for it."""

    code = ErrorCode.TRANSCRIPTION_FALLBACK_FAILED
    suggested_action = "set DEEPGRAM_API_KEY, then replay; or replay with force_method=parakeet"

    def __init__(self, routing_reason: str) -> None:
        self.routing_reason = routing_reason
        super().__init__(f"the job must go to Deepgram ({routing_reason}), and DEEPGRAM_API_KEY is not set")


class DeepgramPriceUnknown(JobFault):
    """The price of `DEEPGRAM_MODEL` is unknown, so costs and budget cannot be computed."""

    suggested_action = "set DEEPGRAM_USD_PER_MINUTE to the price of that model"

    def __init__(self, model: str, known: tuple[str, ...]) -> None:
        self.model, self.known = model, known
        super().__init__(f"the price book has no Deepgram model {model!r}, only {', '.join(known)}")


class FallbackBudgetExhausted(JobFault):
    """The day's Deepgram dollars are spent, and the job cannot do without Deepgram."""

    code = ErrorCode.FALLBACK_BUDGET_EXHAUSTED
    suggested_action = "replay on the next UTC day, or raise FALLBACK_BUDGET_USD_PER_DAY and replay"

    def __init__(self, usd_per_day: float, day: str) -> None:
        self.usd_per_day, self.day = usd_per_day, day
        super().__init__(f"the Deepgram budget of ${usd_per_day:g} for {day} (UTC) is spent")


class TranscriptRejected(Retryable):
    """Parakeet's words for a chunk failed the quality gates, even with other cuts."""

    code = ErrorCode.TRANSCRIPTION_SERVICE_ERROR
    suggested_action = "listen to the audio there; replay with force_method=deepgram"

    def __init__(self, gates: tuple[str, ...]) -> None:
        self.gates = gates
        super().__init__(f"Parakeet's transcript failed: {', '.join(gates)}")
