"""What the core needs from the outside, as Protocols as narrow as their callers, with their obligations.

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
    """None where the subscription has no dead-letter policy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SubscriptionFacts:
    """What the worker must know of its subscription before the first pull."""

    name: str
    ack_deadline_seconds: int
    exactly_once: bool
    dead_letter_topic: str | None
    max_delivery_attempts: int | None


class Subscription(Protocol):
    """A pull subscription. One retry owner: each method retries transport errors itself, except `pull`.

    Every method raises `QueueServiceError` when the service does not answer and `SubscriptionNotFound` when it
    does not exist or was deleted.
    """

    async def facts(self) -> SubscriptionFacts:
        """Describe the subscription as it stands."""
        ...

    async def pull(self, max_messages: int) -> Sequence[Delivery]:
        """Wait for messages and return 0 to `max_messages` of them; an empty answer is normal.

        Cancelling the wait may strand a message until its ack deadline; that is the caller's risk to time.
        """
        ...

    async def extend(self, ack_ids: Sequence[str], seconds: int) -> frozenset[str]:
        """Give each lease `seconds` from now; 0 is a nack. Returns the ack ids known to be expired.

        Only an exactly-once subscription can know; otherwise the answer is empty whatever happened.
        """
        ...

    async def ack(self, ack_id: str) -> None:
        """Settle for good. An id that has expired is not an error: the message will come again and be recognised."""
        ...


class JobSlot(Protocol):
    """The place among the working jobs that a delivery holds."""

    def parked(self) -> AbstractAsyncContextManager[None]:
        """Give the place up for the length of the block and hold one again after it. Raises `ParkingFull`."""
        ...


class Topic(Protocol):
    """A topic to publish to."""

    async def publish(self, data: bytes, attributes: Mapping[str, str], ordering_key: str = "") -> str:
        """Return the message id once the service confirmed it; retries inside, so a duplicate is possible.

        Raises `QueueServiceError` when it was not confirmed, `MessageRefused` when the message breaks Pub/Sub's limits.
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
        """The `gs://` form."""
        return f"gs://{self.bucket}/{self.name}"


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectFacts:
    """Metadata of one generation of an object."""

    ref: ObjectRef
    generation: int
    size_bytes: int
    crc32c: str
    """Base64 of the big-endian checksum, as Cloud Storage writes it."""
    created_at: datetime


class ObjectStore(Protocol):
    """A bucket store with generations. Retries transient faults inside; then raises `StorageServiceError`.

    Reading raises `ObjectNotFound` or `ObjectForbidden`; writing and deleting raise `PreconditionFailed` when the
    object's generation is not the expected one (`if_generation=0`: it must not exist yet; None: no condition).
    After a lost reply a conditional write counts as applied when the very bytes stand there: writers that must be told
    apart put something of their own into the data. Names that could leave their bucket are refused with `InvalidJob`.
    """

    async def stat(self, ref: ObjectRef, generation: int | None = None) -> ObjectFacts:
        """Describe the live object, or that generation of it."""
        ...

    async def download(self, facts: ObjectFacts, destination: Path) -> None:
        """Write exactly that generation to a new file, verified by size and crc32c.

        On any error, cancellation included, no file is left at `destination`.
        """
        ...

    async def read(self, ref: ObjectRef) -> tuple[bytes, ObjectFacts]:
        """The live content of a small object and the facts of that same generation."""
        ...

    async def write(
        self, ref: ObjectRef, data: bytes, *, content_type: str, if_generation: int | None = None
    ) -> ObjectFacts:
        """Write an object held in memory and return what stands there; durable on return.

        Below 8 MiB it is one request; conditions are for such objects only.
        """
        ...

    async def delete(self, ref: ObjectRef, *, if_generation: int | None = None) -> None:
        """Remove the object; one that is already gone is fine."""
        ...

    async def list(self, bucket: str, prefix: str) -> Sequence[ObjectFacts]:
        """Every live object whose name starts with `prefix`, by name."""
        ...

    async def granted(self, bucket: str, permissions: Sequence[str]) -> frozenset[str] | None:
        """Return those of the IAM permissions that the caller has; None where the server cannot tell."""
        ...


# --- audio ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioFacts:
    """What the container claims; the decoded audio is the truth."""

    codec: str
    sample_rate_hz: int
    channels: int
    duration_seconds: float | None
    """As the headers state it; None where they do not."""


class PcmStream(Protocol):
    """A decode under way: iterate to get blocks of samples in order, none empty, none kept.

    Iterating raises `AudioUndecodable` when not one sample could be decoded, `AudioTooLong` once the limit is passed.
    """

    def __aiter__(self) -> AsyncIterator[Pcm]: ...

    @property
    def truncated(self) -> bool:
        """True once the stream has ended, where audio is missing or damaged."""
        ...

    @property
    def other_tracks(self) -> bool:
        """True once the stream has ended, where it was silent throughout and another track of the file is not."""
        ...


class AudioDecoder(Protocol):
    """Turns an audio file into samples, in bounded memory whatever its length."""

    async def identity(self) -> str:
        """Name everything that could give other samples for the same file; part of checkpoint keys."""
        ...

    async def probe(self, path: Path) -> AudioFacts:
        """Read the container's headers. Raises `AudioUndecodable`."""
        ...

    def decode(self, path: Path) -> AbstractAsyncContextManager[PcmStream]:
        """Decode the default audio track. Leaving the context stops the decoder and leaves no process behind."""
        ...


# --- speech -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Recognition:
    """What an engine heard in one window, timed from the window's first sample."""

    words: tuple[Word, ...]
    engine_seconds: float
    """This window's share of the engine time that its batches took, failed tries included: what it costs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineFacts:
    """What the engine runs; goes into events and, with the settings, into checkpoint keys."""

    model_name: str
    model_fingerprint: str
    """Changes whenever the same audio could give other words: weights, precision, decoding, our own version of it."""
    device_name: str
    uses_gpu: bool
    languages: frozenset[str]
    """Primary BCP-47 subtags the model was trained on, lower case."""


class WindowRecogniser(Protocol):
    """A speech engine that works window by window; it may batch windows of several jobs.

    A window's words are a function of its samples alone, whatever shares its batch.
    """

    @property
    def facts(self) -> EngineFacts:
        """Known once the engine has started."""
        ...

    async def recognise(self, samples: Pcm, job_id: str) -> Recognition:
        """Hear one window (at most 40 s). `job_id` is for logs and fairness only.

        Raises `EngineFailure`, `GpuMemoryError`, `GpuNotAvailable` or `TranscriptionTimeout` after the engine's own
        recovery (a smaller batch, a fresh process). Cancelling drops the window where it has not started.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class CloudRecognition:
    """What a paid service heard in one chunk, timed from the chunk's first sample."""

    words: tuple[Word, ...]
    request_id: str
    """The service's own name for the paid request; kept, so that nobody pays for the chunk again."""
    billed_seconds: float
    """Audio seconds this request costs."""
    wasted_requests: int = 0
    """Earlier tries that the service may bill as well although they brought no transcript."""
    interrupted: bool = False
    """The caller was cancelled meanwhile, which was held back for this answer: keep it, then raise `CancelledError`."""


class CloudRecogniser(Protocol):
    """A speech service that is paid by the audio minute and takes whole chunks, one request each."""

    @property
    def model_name(self) -> str:
        """The service's model, as it is asked for."""
        ...

    @property
    def down_because(self) -> str:
        """Return why no request may be sent now: the service is down; empty where one may try."""
        ...

    async def turn(self) -> None:
        """Wait until the service may be asked: while it is down one caller at a time is let go, to try it."""
        ...

    async def recognise(self, samples: Pcm, *, language: str, job_id: str) -> CloudRecognition:
        """Send one chunk and return its words. Retries inside what is worth retrying.

        Raises `DeepgramDown` (or a subclass) where the service is down, `DeepgramRejected` where this chunk can never
        be done, `DeepgramUnavailable`, `DeepgramUnusable` or `TranscriptionTimeout` where a later try may.

        A request that was sent whole is paid for. A caller that is cancelled then gets its answer all the same, marked
        `interrupted`, where it comes within some seconds. In every other case cancellation is immediate. No further
        request is sent.
        """
        ...


# --- time -------------------------------------------------------------------------------------------------------------


class Clock(Protocol):
    """Time as a parameter."""

    def now(self) -> datetime:
        """The UTC wall clock, timezone-aware."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after that long."""
        ...
