"""What can go wrong, as classes: the class is the policy, its code is part of the contract.

`PermanentError`: the same job would fail again, so the worker dead-letters it at once. `TransientError`: a later
attempt may succeed, so the message goes back to Pub/Sub until the job's attempts are used up. `Deferred`: no verdict
at all, the message goes back and nothing is counted. Facts are attributes and the class builds the message; nobody
parses one.
"""

from typing import ClassVar

from schemas.codes import ErrorCode


class WorkerError(Exception):
    """Base of every error the worker raises on purpose.

    `code` goes into events and dead letters; `suggested_action` tells an operator what to do next.
    """

    code: ClassVar[ErrorCode] = ErrorCode.INTERNAL_ERROR
    suggested_action: ClassVar[str] = "look at the worker's log for this job_id"


class TransientError(WorkerError):
    """A later attempt may succeed."""


class PermanentError(WorkerError):
    """The same input will fail again: dead-letter without another attempt."""


class PaidServiceError(WorkerError):
    """A service that is paid by the request gave no transcript."""

    wasted_requests: int = 0
    """Requests that the service may bill all the same."""


class Deferred(WorkerError):
    """Not a verdict on the job: give the message back and count nothing."""


class ParkingFull(Deferred):
    """Another worker does this job, and this one already holds as many such deliveries as it may."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(f"all {limit} parking places are taken")


class ClaimHeld(Deferred):
    """Another worker holds the claim on this job, or concluded the job just now."""

    def __init__(self, job_id: str, owner: str) -> None:
        self.job_id, self.owner = job_id, owner
        super().__init__(f"job {job_id!r} is held by {owner}")


class ClaimLost(Deferred):
    """This worker's claim on the job ended under its hands: another worker has it, or heartbeats failed."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(f"the claim on job {job_id!r} was lost")


class NoRoomForAudio(Deferred):
    """The audio of the jobs under way leaves no room for this one's; another worker may have it."""

    def __init__(self, size_bytes: int, free_bytes: float) -> None:
        self.size_bytes, self.free_bytes = size_bytes, free_bytes
        super().__init__(f"the audio has {size_bytes} bytes, and room is left for {free_bytes:.0f}")


class InvalidJob(PermanentError):
    """The message is not a job of the contract; `violations` lists every one as `field: what is wrong (got value)`."""

    code = ErrorCode.INVALID_JOB
    suggested_action = "correct the fields named in violations and publish the job again"

    def __init__(self, violations: tuple[str, ...]) -> None:
        self.violations = violations
        super().__init__(f"not a valid job: {'; '.join(violations)}")


class UnsupportedSchemaVersion(PermanentError):
    """The job was written for a newer contract than this worker knows."""

    code = ErrorCode.UNSUPPORTED_SCHEMA_VERSION
    suggested_action = "deploy a worker that knows this schema_version, then replay"

    def __init__(self, version: int, newest: int) -> None:
        self.version, self.newest = version, newest
        super().__init__(f"schema_version {version} is newer than {newest}, the newest this worker knows")


class JobIdConflict(PermanentError):
    """Another request already used this job id."""

    code = ErrorCode.JOB_ID_CONFLICT
    suggested_action = "publish the job under a job_id of its own"

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(f"job_id {job_id!r} was used before for another request")


class AudioNotFound(PermanentError):
    """The audio object, or the pinned generation of it, does not exist."""

    code = ErrorCode.AUDIO_NOT_FOUND
    suggested_action = "upload the audio, then replay the job"

    def __init__(self, uri: str, generation: int | None = None) -> None:
        self.uri, self.generation = uri, generation
        super().__init__(f"no object at {uri}" + (f" with generation {generation}" if generation else ""))


class AudioForbidden(PermanentError):
    """The worker may not read that bucket, by its settings or by IAM."""

    code = ErrorCode.AUDIO_FORBIDDEN
    suggested_action = "grant the worker's service account access to the bucket, or list it in INPUT_BUCKETS"

    def __init__(self, uri: str, reason: str) -> None:
        self.uri, self.reason = uri, reason
        super().__init__(f"may not read {uri}: {reason}")


class AudioTooLarge(PermanentError):
    """The object is larger than `MAX_FILE_SIZE_GB`; it was not downloaded."""

    code = ErrorCode.AUDIO_TOO_LARGE
    suggested_action = "publish smaller audio (16 kHz mono is enough) or raise MAX_FILE_SIZE_GB"

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        self.size_bytes, self.limit_bytes = size_bytes, limit_bytes
        super().__init__(f"the audio object has {size_bytes} bytes, the limit is {limit_bytes}")


class AudioTooLong(PermanentError):
    """The audio is longer than `MAX_AUDIO_HOURS`."""

    code = ErrorCode.AUDIO_TOO_LONG
    suggested_action = "split the audio or raise MAX_AUDIO_HOURS"

    def __init__(self, seconds: float, limit_seconds: float) -> None:
        self.seconds, self.limit_seconds = seconds, limit_seconds
        super().__init__(f"the audio is at least {seconds:.0f} s long, the limit is {limit_seconds:.0f} s")


class AudioUndecodable(PermanentError):
    """No audio can be decoded from the object: empty, not media, no audio track, or refused as hostile."""

    code = ErrorCode.AUDIO_UNDECODABLE
    suggested_action = "play the file locally; publish WAV, FLAC, MP3, AAC/MP4, Opus/Ogg or WebM audio"

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the audio cannot be decoded: {reason}")


class StorageServiceError(TransientError):
    """Cloud Storage did not do `operation` on `uri` after the adapter's own retries."""

    code = ErrorCode.STORAGE_SERVICE_ERROR
    suggested_action = "check Cloud Storage's status and the bucket's permissions, then replay"

    def __init__(self, operation: str, uri: str, reason: str) -> None:
        self.operation, self.uri, self.reason = operation, uri, reason
        super().__init__(f"storage could not {operation} {uri}: {reason}")


class ObjectNotFound(PermanentError):
    """No such object, or not that generation of it. Callers that know what the object was raise a better error."""

    code = ErrorCode.AUDIO_NOT_FOUND

    def __init__(self, uri: str) -> None:
        self.uri = uri
        super().__init__(f"no object at {uri}")


class ObjectForbidden(PermanentError):
    """IAM refuses the operation on the object. Callers that know what the object was raise a better error."""

    code = ErrorCode.AUDIO_FORBIDDEN

    def __init__(self, operation: str, uri: str) -> None:
        self.operation, self.uri = operation, uri
        super().__init__(f"no permission to {operation} {uri}")


class PreconditionFailed(WorkerError):
    """Another writer was first: the object's generation is not the expected one."""

    def __init__(self, uri: str, expected_generation: int | None) -> None:
        self.uri, self.expected_generation = uri, expected_generation
        super().__init__(f"{uri} is not at generation {expected_generation}")


class QueueServiceError(TransientError):
    """Pub/Sub did not do `operation` after the adapter's own retries."""

    suggested_action = "check Pub/Sub's status and the worker's permissions"

    def __init__(self, operation: str, resource: str, reason: str) -> None:
        self.operation, self.resource, self.reason = operation, resource, reason
        super().__init__(f"Pub/Sub could not {operation} {resource}: {reason}")


class QueueNotFound(PermanentError):
    """The topic or subscription does not exist (or was deleted under a running worker): the worker must stop."""

    suggested_action = "create it (deploy/provision.sh) or correct the setting that names it"

    def __init__(self, resource: str) -> None:
        self.resource = resource
        super().__init__(f"no such Pub/Sub resource: {resource}")


class GpuNotAvailable(TransientError):
    """Parakeet was asked for and cannot run: GPU transcription is off, or there is no healthy GPU."""

    code = ErrorCode.GPU_NOT_AVAILABLE
    suggested_action = "check ENABLE_GPU_TRANSCRIPTION and the GPU; or replay with force_method=deepgram"

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"Parakeet cannot run: {reason}")


class ParakeetDisabled(PermanentError):
    """The job forces Parakeet, which this worker's settings or the job's own restrictions rule out."""

    code = ErrorCode.GPU_NOT_AVAILABLE
    suggested_action = "replay with force_method=deepgram, or turn on ENABLE_GPU_TRANSCRIPTION"

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"Parakeet may not be used: {reason}")


class GpuMemoryError(TransientError):
    """A batch did not fit into the GPU's memory, at the smallest size too."""

    code = ErrorCode.GPU_MEMORY_ERROR
    suggested_action = "lower GPU_BATCH_SIZE or raise GPU_MEMORY_LIMIT_GB"

    def __init__(self, batch_windows: int) -> None:
        self.batch_windows = batch_windows
        super().__init__(f"out of GPU memory with a batch of {batch_windows} window(s)")


class ModelLoadingError(TransientError):
    """The model could not be loaded; at start-up the worker exits with it."""

    code = ErrorCode.MODEL_LOADING_ERROR
    suggested_action = "check PARAKEET_MODEL_NAME: a hub name, or a path to a readable .nemo file"

    def __init__(self, model: str, reason: str) -> None:
        self.model, self.reason = model, reason
        super().__init__(f"cannot load the model {model!r}: {reason}")


class TranscriptionTimeout(PaidServiceError, TransientError):
    """An engine gave no answer in time."""

    code = ErrorCode.TRANSCRIPTION_TIMEOUT
    suggested_action = "replay; if it repeats, look at the engine's health"

    def __init__(self, engine: str, seconds: float) -> None:
        self.engine, self.seconds = engine, seconds
        super().__init__(f"{engine} gave no answer within {seconds:.0f} s")


class EngineFailure(TransientError):
    """The inference process died or failed on this window, in a fresh process too."""

    code = ErrorCode.TRANSCRIPTION_SERVICE_ERROR
    suggested_action = "replay; if it repeats, replay with force_method=deepgram"

    def __init__(self, engine: str, reason: str) -> None:
        self.engine, self.reason = engine, reason
        super().__init__(f"{engine} failed: {reason}")


class DeepgramQuotaError(PaidServiceError, TransientError):
    """Deepgram takes no more for now: out of credit (402), or too many requests (429) after waiting as it asked."""

    code = ErrorCode.DEEPGRAM_QUOTA_ERROR
    suggested_action = "check the Deepgram project's balance and rate limit, then replay"

    def __init__(self, status: int, reason: str) -> None:
        self.status, self.reason = status, reason
        super().__init__(f"Deepgram's quota is used up ({status}): {reason}")


class DeepgramAuthError(PaidServiceError, PermanentError):
    """Deepgram does not accept the API key, or the key may not use the model (401, 403)."""

    code = ErrorCode.DEEPGRAM_AUTH_ERROR
    suggested_action = "set a valid DEEPGRAM_API_KEY that may use DEEPGRAM_MODEL, then replay"

    def __init__(self, status: int, reason: str) -> None:
        self.status, self.reason = status, reason
        super().__init__(f"Deepgram refuses the API key ({status}): {reason}")


class DeepgramRejected(PaidServiceError, PermanentError):
    """Deepgram says that this request can never succeed (400, 404, 413, 422)."""

    code = ErrorCode.TRANSCRIPTION_FALLBACK_FAILED
    suggested_action = "look at the reason; the audio or DEEPGRAM_MODEL does not suit Deepgram"

    def __init__(self, status: int, reason: str) -> None:
        self.status, self.reason = status, reason
        super().__init__(f"Deepgram rejects the request ({status}): {reason}")


class DeepgramUnavailable(PaidServiceError, TransientError):
    """Deepgram failed on its side, or its answer was no transcript (5xx, resets, malformed bodies)."""

    code = ErrorCode.TRANSCRIPTION_FALLBACK_FAILED
    suggested_action = "check Deepgram's status page, then replay"

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"Deepgram did not transcribe: {reason}")


class DeepgramNotConfigured(PermanentError):
    """The job can only go to Deepgram, and this worker has no key for it."""

    code = ErrorCode.TRANSCRIPTION_FALLBACK_FAILED
    suggested_action = "set DEEPGRAM_API_KEY, then replay; or replay with force_method=parakeet"

    def __init__(self, routing_reason: str) -> None:
        self.routing_reason = routing_reason
        super().__init__(f"the job must go to Deepgram ({routing_reason}), and DEEPGRAM_API_KEY is not set")


class DeepgramPriceUnknown(PermanentError):
    """Nobody knows what `DEEPGRAM_MODEL` costs, so neither costs nor budget could be reckoned."""

    suggested_action = "set DEEPGRAM_USD_PER_MINUTE to the price of that model"

    def __init__(self, model: str, known: tuple[str, ...]) -> None:
        self.model, self.known = model, known
        super().__init__(f"the price book has no Deepgram model {model!r}, only {', '.join(known)}")


class FallbackBudgetExhausted(PermanentError):
    """The day's Deepgram dollars are spent, and the job cannot do without Deepgram."""

    code = ErrorCode.FALLBACK_BUDGET_EXHAUSTED
    suggested_action = "replay on the next UTC day, or raise FALLBACK_BUDGET_USD_PER_DAY and replay"

    def __init__(self, usd_per_day: float, day: str) -> None:
        self.usd_per_day, self.day = usd_per_day, day
        super().__init__(f"the Deepgram budget of ${usd_per_day:g} for {day} (UTC) is spent")


class TranscriptRejected(TransientError):
    """Parakeet's words of a chunk failed the quality gates, with other cuts too."""

    code = ErrorCode.TRANSCRIPTION_SERVICE_ERROR
    suggested_action = "listen to the audio there; replay with force_method=deepgram"

    def __init__(self, gates: tuple[str, ...]) -> None:
        self.gates = gates
        super().__init__(f"Parakeet's transcript failed: {', '.join(gates)}")


class AttemptsExhausted(PermanentError):
    """Workers kept dying on this job without a verdict."""

    code = ErrorCode.ATTEMPTS_EXHAUSTED
    suggested_action = "look for out-of-memory kills in the platform's log, then replay"

    def __init__(self, crashes: int, limit: int) -> None:
        self.crashes, self.limit = crashes, limit
        super().__init__(f"{crashes} starts of this job ended without a verdict, the limit is {limit}")
