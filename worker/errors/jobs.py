"""Errors of jobs: of their messages, their audio, and the engines that transcribe it."""

from datetime import datetime

from schemas.codes import ErrorCode
from worker.errors.policy import JobFault, PaidServiceError, Retryable, ServiceDown, WorkerError, WorkerFault

TOLD_VIOLATIONS = 5
"""Violations in the error's message; the event and the dead letter list all of them."""


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
        super().__init__(f"schema_version {version} is newer than {newest}, the newest this worker knows")


class JobIdConflict(JobFault):
    """Another request already used this job id."""

    code = ErrorCode.JOB_ID_CONFLICT
    suggested_action = "publish the job under a job_id of its own"

    def __init__(self, job_id: str) -> None:
        super().__init__(f"job_id {job_id!r} was used before for another request")


class AudioNotFound(JobFault):
    """The audio object, or the pinned generation of it, does not exist."""

    code = ErrorCode.AUDIO_NOT_FOUND
    suggested_action = "upload the audio, then replay the job"

    def __init__(self, uri: str, generation: int | None = None) -> None:
        super().__init__(f"no object at {uri}" + (f" with generation {generation}" if generation else ""))


class AudioReplaced(Retryable):
    """The audio object was replaced between its lookup and its download, each time."""

    code = ErrorCode.STORAGE_SERVICE_ERROR
    suggested_action = "stop overwriting the object while it is transcribed, or pin its generation; then replay"

    def __init__(self, uri: str, looks: int) -> None:
        super().__init__(f"{uri} was replaced while it was fetched, {looks} times in a row")


class AudioForbidden(JobFault):
    """The worker may not read that bucket, by its settings or by IAM."""

    code = ErrorCode.AUDIO_FORBIDDEN
    suggested_action = "grant the worker's service account access to the bucket, or list it in INPUT_BUCKETS"

    def __init__(self, uri: str, reason: str) -> None:
        super().__init__(f"may not read {uri}: {reason}")


class AudioTooLarge(JobFault):
    """The object is larger than `MAX_FILE_SIZE_GB`; it was not downloaded."""

    code = ErrorCode.AUDIO_TOO_LARGE
    suggested_action = "publish smaller audio (16 kHz mono is enough) or raise MAX_FILE_SIZE_GB"

    def __init__(self, size_bytes: int, limit_bytes: int, *, unpacked: bool = False) -> None:
        self.limit_bytes = limit_bytes
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
        super().__init__(f"the audio cannot be decoded: {reason}")


class DeliveriesExhausted(JobFault):
    """The subscription's own policy gave the job up: no worker reached a verdict on any of its deliveries."""

    code = ErrorCode.ATTEMPTS_EXHAUSTED
    suggested_action = "look for out-of-memory kills in the platform's log, then replay"

    def __init__(self, deliveries: int) -> None:
        counted = f"{deliveries} deliveries" if deliveries else "deliveries it did not count"
        super().__init__(f"the subscription gave up after {counted}, without a verdict of a worker")


class AttemptsExhausted(JobFault):
    """Workers died on this job without a verdict, or it broke them, too many times: `reason` is the last fault."""

    code = ErrorCode.ATTEMPTS_EXHAUSTED
    suggested_action = "look at the reason, or for out-of-memory kills in the platform's log, then replay"

    def __init__(self, crashes: int, limit: int, reason: str = "") -> None:
        counted = f"{crashes} starts of this job ended without a verdict, the limit is {limit}"
        super().__init__(f"{counted}; the last: {reason}" if reason else counted)


class JobExpired(JobFault):
    """The job was delivered after its `expires_at`, and no chunk of it was finished by then."""

    code = ErrorCode.EXPIRED
    suggested_action = "publish it again with a later expires_at and the next run; or replay with --set expires_at=null"

    def __init__(self, expires_at: datetime, seconds_late: float) -> None:
        self.expires_at = expires_at
        super().__init__(f"the job expired at {expires_at.isoformat()}, {seconds_late:.0f} s before it could be begun")


class EngineError(WorkerError):
    """Parakeet did not transcribe a window."""

    engine_seconds: float = 0.0
    """Engine time of the failed window."""


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
        super().__init__(f"Parakeet may not be used: {reason}")


class GpuMemoryError(EngineError, Retryable):
    """A batch did not fit into the GPU's memory, even at the smallest size."""

    code = ErrorCode.GPU_MEMORY_ERROR
    suggested_action = "lower GPU_BATCH_SIZE or raise GPU_MEMORY_LIMIT_GB"

    def __init__(self, batch_windows: int) -> None:
        super().__init__(f"out of GPU memory with a batch of {batch_windows} window(s)")


class ModelLoadingError(WorkerFault):
    """The model could not be loaded; at start-up the worker exits with it."""

    code = ErrorCode.MODEL_LOADING_ERROR
    part = "engine"
    suggested_action = "check PARAKEET_MODEL_NAME: a hub name, a readable .nemo file, or a folder of safetensors"

    def __init__(self, model: str, reason: str) -> None:
        self.reason = reason
        super().__init__(f"cannot load the model {model!r}: {reason}")


class TranscriptionTimeout(PaidServiceError, EngineError, Retryable):
    """An engine did not answer in time."""

    code = ErrorCode.TRANSCRIPTION_TIMEOUT
    suggested_action = "replay; if it repeats, look at the engine's health"

    def __init__(self, engine: str, seconds: float) -> None:
        self.engine = engine
        super().__init__(f"{engine} gave no answer within {seconds:.0f} s")


class EngineFailure(EngineError, Retryable):
    """The inference process died or failed on this window, and so did a fresh process."""

    code = ErrorCode.TRANSCRIPTION_SERVICE_ERROR
    suggested_action = "replay; if it repeats, replay with force_method=deepgram"

    def __init__(self, engine: str, reason: str) -> None:
        self.engine = engine
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
        super().__init__(reason, f"Deepgram refuses the API key ({status})")


class DeepgramRejected(PaidServiceError, JobFault):
    """Deepgram rejects this request for good: its audio or options are not acceptable (400, 413 to 415, 422)."""

    code = ErrorCode.TRANSCRIPTION_FALLBACK_FAILED
    suggested_action = "look at the reason; the audio or DEEPGRAM_MODEL does not suit Deepgram"

    def __init__(self, status: int, reason: str) -> None:
        self.reason = reason
        super().__init__(f"Deepgram rejects the request ({status}): {reason}")


class DeepgramUnavailable(PaidServiceError, Retryable):
    """One request failed although Deepgram served others, or so late that it may be billed."""

    code = ErrorCode.TRANSCRIPTION_FALLBACK_FAILED
    suggested_action = "check Deepgram's status page, then replay"

    def __init__(self, reason: str) -> None:
        super().__init__(f"Deepgram did not transcribe: {reason}")


class DeepgramUnusable(PaidServiceError, Retryable):
    """Deepgram's answer to one billed request is not a transcript of its audio."""

    code = ErrorCode.TRANSCRIPTION_FALLBACK_FAILED
    suggested_action = "replay; if it repeats, send Deepgram's support the reason, or replay with force_method=parakeet"

    def __init__(self, reason: str) -> None:
        super().__init__(f"Deepgram's answer is no transcript: {reason}")


class DeepgramNotConfigured(JobFault):
    """The job can only go to Deepgram, and this worker has no key for it."""

    code = ErrorCode.TRANSCRIPTION_FALLBACK_FAILED
    suggested_action = "set DEEPGRAM_API_KEY, then replay; or replay with force_method=parakeet"

    def __init__(self, routing_reason: str) -> None:
        super().__init__(f"the job must go to Deepgram ({routing_reason}), and DEEPGRAM_API_KEY is not set")


class DeepgramPriceUnknown(JobFault):
    """Without the price of `DEEPGRAM_MODEL` costs and budget cannot be computed."""

    suggested_action = "set DEEPGRAM_USD_PER_MINUTE to the price of that model"

    def __init__(self, model: str, known: tuple[str, ...]) -> None:
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
        super().__init__(f"Parakeet's transcript failed: {', '.join(gates)}")
