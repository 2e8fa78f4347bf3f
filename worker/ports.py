"""Ports: the core's needs of the outside, as Protocols as narrow as their callers, with their obligations.

Every port has an in-memory twin in `worker.adapters.memory`, and one contract suite in tests/contract runs on the
twin and on the real adapter. Adapters translate vendor errors into `worker.errors`; callers see no vendor exception.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from schemas.speech import Word

SAMPLE_RATE_HZ = 16_000

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pcm: TypeAlias = NDArray[np.int16]
    """Mono samples at `SAMPLE_RATE_HZ`, shape (samples,)."""
else:
    Pcm = Any  # commands that only look at messages need not load numpy, which takes a tenth of a second


# --- messages ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """One delivery of one message; the same message may be delivered again with another `ack_id`."""

    ack_id: str
    message_id: str
    data: bytes
    attributes: Mapping[str, str]
    publish_time: datetime
    ordering_key: str = ""
    delivery_attempt: int | None = None
    """Pub/Sub's count of deliveries; None if the subscription has no dead-letter policy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SubscriptionFacts:
    """Properties of a subscription."""

    name: str
    ack_deadline_seconds: int
    exactly_once: bool
    dead_letter_topic: str | None
    max_delivery_attempts: int | None
    topic: str = ""
    filter: str = ""


class Subscription(Protocol):
    """A pull subscription. Each method but `pull` owns the retries of its transport errors.

    Every method raises `QueueServiceError` if the service does not answer, and `SubscriptionNotFound`.
    """

    async def facts(self) -> SubscriptionFacts:
        """Return the subscription's current properties."""
        ...

    async def pull(self, max_messages: int) -> Sequence[Delivery]:
        """Wait for messages and return 0 to `max_messages` of them; an empty result is normal.

        A cancelled wait may leave a message undelivered until its ack deadline.
        """
        ...

    async def extend(self, ack_ids: Sequence[str], seconds: int) -> frozenset[str]:
        """Set each lease to end `seconds` from now; 0 is a nack. Return the ack ids known to be expired.

        Only an exactly-once subscription knows expired ids; for any other the result is always empty.
        """
        ...

    async def ack(self, ack_id: str) -> None:
        """Acknowledge the delivery. An expired id is no error: the message is delivered again and recognised."""
        ...


class JobSlot(Protocol):
    """The job slot of a delivery."""

    def parked(self) -> AbstractAsyncContextManager[None]:
        """Release the slot inside the block; re-acquire one on exit. Raises `ParkingFull`."""
        ...


class Topic(Protocol):
    """A topic to publish to."""

    async def publish(self, data: bytes, attributes: Mapping[str, str], ordering_key: str = "") -> str:
        """Return the message id once the service has confirmed it. Retries, so a duplicate is possible.

        Raises `QueueServiceError` if the message was not confirmed, `MessageRefused` if it exceeds Pub/Sub's limits.
        """
        ...


# --- objects ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """A Cloud Storage object: `gs://bucket/name`. `name` is taken literally, never normalised."""

    bucket: str
    name: str

    @property
    def uri(self) -> str:
        """The object's `gs://` URI."""
        return f"gs://{self.bucket}/{self.name}"


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectFacts:
    """Metadata of one generation of an object."""

    ref: ObjectRef
    generation: int
    size_bytes: int
    crc32c: str
    """Base64 of the big-endian checksum, in Cloud Storage's format."""
    created_at: datetime


class ObjectStore(Protocol):
    """An object store with generations. Owns the retries of transient faults; then raises `StorageServiceError`.

    Reading raises `ObjectNotFound` or `ObjectForbidden`. Writing and deleting raise `PreconditionFailed` if the
    object's generation is not the expected one (`if_generation=0`: it must not exist yet; None: no condition). After a
    lost reply a conditional write counts as applied if the object has the same bytes: writers that must be
    distinguished put something unique into the data. Names that could leave their bucket are refused with `InvalidJob`.
    """

    async def stat(self, ref: ObjectRef, generation: int | None = None) -> ObjectFacts:
        """Return the metadata of the live object, or of the given generation."""
        ...

    async def download(self, facts: ObjectFacts, destination: Path) -> None:
        """Download exactly that generation to a new file, verified by size and crc32c.

        On any error, cancellation included, no file is left at `destination`.
        """
        ...

    async def read(self, ref: ObjectRef) -> tuple[bytes, ObjectFacts]:
        """Return the content of a small live object and the facts of the same generation."""
        ...

    async def write(
        self, ref: ObjectRef, data: bytes, *, content_type: str, if_generation: int | None = None
    ) -> ObjectFacts:
        """Write an object from memory and return its facts; the object is durable on return.

        Objects below 8 MiB take one request; conditions are supported for these only.
        """
        ...

    async def delete(self, ref: ObjectRef, *, if_generation: int | None = None) -> None:
        """Delete the object; deleting a missing object is a no-op."""
        ...

    async def list(self, bucket: str, prefix: str) -> Sequence[ObjectFacts]:
        """Return every live object whose name starts with `prefix`, sorted by name."""
        ...

    async def granted(self, bucket: str, permissions: Sequence[str]) -> frozenset[str] | None:
        """Return those of the IAM permissions that the caller has; None if the server does not support the query."""
        ...


# --- audio ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioFacts:
    """Facts from the container's headers; the decoded audio may differ."""

    codec: str
    sample_rate_hz: int
    channels: int
    duration_seconds: float | None
    """None if the headers state none."""


class PcmStream(Protocol):
    """A running decode. Iterating yields blocks of samples in order; no block is empty or reused.

    Iterating raises `AudioUndecodable` if not one sample could be decoded, `AudioTooLong` once the limit is exceeded.
    """

    def __aiter__(self) -> AsyncIterator[Pcm]: ...

    @property
    def truncated(self) -> bool:
        """True if audio is missing or damaged; valid once the stream has ended."""
        ...

    @property
    def other_tracks(self) -> bool:
        """True if the track was silent throughout and another track is not; valid once the stream has ended."""
        ...


class AudioDecoder(Protocol):
    """Decoder of audio files into samples, in memory that does not depend on their length."""

    async def identity(self) -> str:
        """Return a string that names everything that affects the samples of a file; part of checkpoint keys."""
        ...

    async def probe(self, path: Path) -> AudioFacts:
        """Read the container's headers. Raises `AudioUndecodable`."""
        ...

    def decode(self, path: Path, *, channel: int | None = None) -> AbstractAsyncContextManager[PcmStream]:
        """Decode the default audio track: a mix of its channels, or one channel alone, counted from 0.

        Where the file does not have that channel, all of it or a stretch, it is silent. Every channel is as long as
        the mix, but for an encoder's delay of up to 0.14 s that no header states. Leaving the context stops the decoder
        and leaves no process behind.
        """
        ...


# --- speech -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Recognition:
    """Words of one window, with times relative to the window's first sample."""

    words: tuple[Word, ...]
    engine_seconds: float
    """This window's share of the engine time of its passes, failed ones included, in seconds: its cost."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineFacts:
    """The engine's device and model; part of events and, with the settings, of checkpoint keys."""

    model_name: str
    model_fingerprint: str
    """Changes whenever the same audio could give other words: with weights, precision, decoding or its version."""
    device_name: str
    uses_gpu: bool
    languages: frozenset[str]
    """Primary BCP-47 subtags the model was trained on, lower case."""
    is_calibrated: bool = False
    """True where confidences are measured probabilities of being right, and not those of the weakest pieces."""
    keyterm_fingerprint: str = ""
    """Changes whenever the same keyterms could give other words, as with their weight; part of checkpoint keys of jobs
    with keyterms. Empty: the engine ignores keyterms."""


class WindowRecogniser(Protocol):
    """A speech engine that recognises windows and may batch windows of several jobs.

    A window's words depend on its samples and its keyterms only, not on the windows that share its pass.
    """

    @property
    def facts(self) -> EngineFacts:
        """Facts about the engine, known once it has started."""
        ...

    def unspeakable(self, keyterms: Sequence[str]) -> tuple[str, ...]:
        """Return the keyterms that the model's vocabulary cannot spell: they are ignored. Cheap; once started."""
        ...

    async def recognise(
        self, samples: Pcm, job_id: str, *, keyterms: tuple[str, ...] = (), team_id: str = ""
    ) -> Recognition:
        """Recognise one window of at most 40 s, preferring the keyterms: names and terms of its job.

        `job_id` and `team_id` are for logs and fairness only. Without keyterms the words are those of the model alone.
        Raises `EngineFailure`, `GpuMemoryError`, `GpuNotAvailable` or `TranscriptionTimeout` after the engine's own
        recovery (a smaller batch, a fresh process). Cancelling drops the window if it has not started.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class CloudRecognition:
    """A paid service's words of one chunk, with times relative to the chunk's first sample."""

    words: tuple[Word, ...]
    request_id: str
    """The service's own id of the paid request; stored with the chunk's checkpoint."""
    billed_seconds: float
    """Audio seconds billed for this request."""
    wasted_requests: int = 0
    """Earlier requests that the service may bill although they returned no transcript."""
    interrupted: bool = False
    """True if the caller was cancelled and the cancellation was delayed: store the answer, then re-raise it."""


class CloudRecogniser(Protocol):
    """A speech service that bills by the audio minute and takes whole chunks, one request each."""

    @property
    def model_name(self) -> str:
        """The service's model, as in requests."""
        ...

    @property
    def down_because(self) -> str:
        """Return why the service is considered down, or an empty string."""
        ...

    async def turn(self) -> None:
        """Wait until a request may be sent. While the service is down, one caller at a time is released as a probe."""
        ...

    async def recognise(
        self, samples: Pcm, *, language: str, job_id: str, keyterms: tuple[str, ...] = ()
    ) -> CloudRecognition:
        """Send one chunk and return its words, preferring the keyterms where the model can. Owns its retries.

        Raises `DeepgramDown` (or a subclass) if the service is down, `DeepgramRejected` if this chunk can never be
        recognised, `DeepgramUnavailable`, `DeepgramUnusable` or `TranscriptionTimeout` if a later attempt may succeed.

        A request is billed once it is sent completely. If the caller is cancelled after that, the answer is still
        returned, marked `interrupted`, if it arrives within a few seconds. In all other cases cancellation is
        immediate. No further request is sent.
        """
        ...


# --- time -------------------------------------------------------------------------------------------------------------


class Clock(Protocol):
    """Source of time."""

    def now(self) -> datetime:
        """Return the wall-clock time in UTC, timezone-aware."""
        ...

    def monotonic(self) -> float:
        """Return seconds of a clock that never goes back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds`."""
        ...
