"""Deepgram as the worker's paid speech service: `POST /v1/listen`.

For the operator: the key needs the scope `usage:write` and a project with credit and access to the model. All workers
of the pool share the project's limit of concurrent requests (50 to 100, by plan). The key appears in the Authorization
header alone: not in logs, errors or reprs.

A request cannot be cancelled: one that was sent completely is billed, with or without an answer. So the time limits are
long, a request that may have been billed is retried least, and connections are not reused: on a stale one a request
would fail as if it were billed.
"""

import asyncio
import io
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import Self, TypeAlias, TypeVar, cast

import httpx
import soundfile
import structlog

from schemas.job import ANY_LANGUAGE
from worker.adapters.deepgram.answers import (
    TryFailed,
    answer_limit_bytes,
    disconnected,
    read_answer,
    refused,
    timed_out,
    unusable,
)
from worker.adapters.deepgram.breaker import CircuitBreaker
from worker.errors import DeepgramRejected
from worker.ports import SAMPLE_RATE_HZ, Clock, CloudRecognition, Pcm
from worker.telemetry.register import DEEPGRAM_RETRIES

URL = "https://api.deepgram.com"
PATH = "/v1/listen"
OPTIONS = {"smart_format": "true", "punctuate": "true", "paragraphs": "true", "filler_words": "true"}
"""The pipeline's own options, besides model and language."""
MOST_REFUSAL_BYTES = 64 << 10
PIECE_BYTES = 1 << 18

KEYTERM = "keyterm"
NOVA_3 = "nova-3"
"""Also the prefix of the models that take keyterms."""
MOST_KEYTERM_TOKENS = 500
"""Deepgram's limit of all keyterms of a request together."""
BYTES_PER_KEYTERM_TOKEN = 2
"""The fewest, of names too: Deepgram does not publish its tokens."""

_log = structlog.get_logger(__name__)

T = TypeVar("T")

Options: TypeAlias = Mapping[str, str | list[str]]
"""Parameters of a request that depend on its job; a list is sent as one parameter an item."""


@dataclass(frozen=True, kw_only=True)
class RequestTimeouts:
    """Time limits of one request. Deepgram works for 600 s at most, and is mostly far faster than real time."""

    least_seconds: float = 60.0
    seconds_per_audio_second: float = 0.5
    most_seconds: float = 660.0
    connect_seconds: float = 10.0
    write_seconds: float = 30.0
    """Without the network taking a byte: such a request was not sent whole, and costs nothing."""
    refusal_seconds: float = 5.0
    """For the body of a refusal, which is only shown."""
    cancelled_seconds: float = 3.2
    """For the answer to a request that was sent whole before its caller was cancelled; a stopping worker has 8 s."""

    def limit_seconds(self, audio_seconds: float) -> float:
        """For the whole try, from the first byte to the last."""
        return min(self.least_seconds + self.seconds_per_audio_second * audio_seconds, self.most_seconds)


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Number of requests for one chunk, and the waits in between."""

    tries: int = 6
    wasted_repeats: int = 1
    """Maximum number of retries after a request that may be billed; more are left to the job's next delivery, when the
    trouble may be over."""
    first_wait_seconds: float = 1.0
    longest_wait_seconds: float = 60.0
    """Limit of our own backoff and of what the service asks for; a longer wait ends the retries."""


class Tries:
    """The tries for one chunk. Waits are random below a doubling bound, or a little over what the service asks for.

    `may_repeat` is asked after each failed try.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        clock: Clock,
        rng: random.Random,
        job_id: str,
        may_repeat: Callable[[], bool] = lambda: True,
    ) -> None:
        self._policy, self._clock, self._rng, self._job_id = policy, clock, rng, job_id
        self._may_repeat = may_repeat
        self.wasted = 0

    async def run(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return what `call` returns in the end. Raises the `error` of its last `TryFailed`, with `wasted_requests`."""
        attempt = 1
        while True:
            try:
                return await call()
            except TryFailed as failed:
                self.wasted += failed.was_wasted
                if attempt >= self._policy.tries or not self._is_repeated(failed):
                    failed.error.wasted_requests = self.wasted
                    raise failed.error from failed.__cause__
                wait_seconds = self._wait_seconds(failed, attempt)
                DEEPGRAM_RETRIES.add()
                _log.warning(
                    "deepgram.retry",
                    job_id=self._job_id,
                    attempt=attempt,
                    reason=str(failed),
                    wait_seconds=round(wait_seconds, 3),
                    wasted_requests=self.wasted,
                )
            await self._clock.sleep(wait_seconds)
            attempt += 1

    def _is_repeated(self, failed: TryFailed) -> bool:
        return (
            failed.is_worth_repeating
            and self._may_repeat()
            and not (failed.was_wasted and self.wasted > self._policy.wasted_repeats)
            and (failed.retry_after_seconds or 0) <= self._policy.longest_wait_seconds
        )

    def _wait_seconds(self, failed: TryFailed, attempt: int) -> float:
        if failed.retry_after_seconds is not None:
            return failed.retry_after_seconds + self._rng.uniform(0, self._policy.first_wait_seconds)
        bound = self._policy.first_wait_seconds * 2 ** (attempt - 1)
        return self._rng.uniform(0, min(bound, self._policy.longest_wait_seconds))


class FlacBody:
    """The samples as one FLAC file, to be iterated once; encoded in a thread before the first piece.

    The bytes are a function of the samples and the installed libFLAC. docs/tried.md has what other encodings cost.
    """

    def __init__(self, samples: Pcm) -> None:
        self._samples = samples
        self.exhausted = False
        """The service may have the whole file."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        encoded = await asyncio.to_thread(_encode, self._samples)
        while piece := encoded.read(PIECE_BYTES):
            yield piece
        self.exhausted = True


def _encode(samples: Pcm) -> io.BytesIO:
    encoded = io.BytesIO()
    soundfile.write(encoded, samples, SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
    encoded.seek(0)
    return encoded


class DeepgramRecogniser:
    """`worker.ports.CloudRecogniser` on httpx; `async with` gives it its connections.

    At most `max_concurrent` chunks are in flight, their waits between retries included, so that a service that asks for
    fewer requests gets fewer. Raises `ValueError` for a key that cannot be sent.
    """

    def __init__(
        self,
        *,
        api_key: str,
        model: str,
        max_concurrent: int,
        clock: Clock,
        rng: random.Random,
        base_url: str | None = None,
        retries: RetryPolicy | None = None,
        timeouts: RequestTimeouts | None = None,
    ) -> None:
        self._api_key, self._url = _sendable(api_key), (base_url or URL).rstrip("/") + PATH
        self._model = model
        self._slots = asyncio.Semaphore(max_concurrent)
        self._clock, self._rng = clock, rng
        self._retries, self._timeouts = retries or RetryPolicy(), timeouts or RequestTimeouts()
        self._breaker = CircuitBreaker(clock)
        self._keyterms_ignored_logged = False

    @property
    def model_name(self) -> str:
        """The service's model, as it is asked for."""
        return self._model

    @property
    def down_because(self) -> str:
        """See the port."""
        return self._breaker.down_because

    async def turn(self) -> None:
        """See the port."""
        await self._breaker.turn()

    async def __aenter__(self) -> Self:
        self._http = httpx.AsyncClient(limits=httpx.Limits(max_keepalive_connections=0), follow_redirects=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def recognise(
        self, samples: Pcm, *, language: str, job_id: str, keyterms: tuple[str, ...] = ()
    ) -> CloudRecognition:
        """See the port. Waits for a free slot first; then fails at once where Deepgram has been failing.

        A chunk that is refused because of its keyterms is sent again without them.
        """
        options: Options = {**language_of(language, self._model), **self._keyterms_of(keyterms)}
        async with self._slots:
            await self._breaker.own_probe_ended(job_id)
            with self._breaker.guard(job_id) as is_probe:
                policy = replace(self._retries, tries=1) if is_probe else self._retries
                tries = Tries(policy, self._clock, self._rng, job_id, may_repeat=lambda: not self._breaker.is_open)
                try:
                    heard = await tries.run(lambda: self._try(samples, options, job_id))
                except DeepgramRejected as refusal:
                    if KEYTERM not in options or KEYTERM not in refusal.reason.lower():
                        raise
                    _log.warning("deepgram.keyterms_refused", reason=refusal.reason)
                    heard = await tries.run(lambda: self._try(samples, language_of(language, self._model), job_id))
                return replace(heard, wasted_requests=tries.wasted)

    def _keyterms_of(self, keyterms: tuple[str, ...]) -> dict[str, list[str]]:
        """Return the parameter with the keyterms that fit. A model without it is logged once."""
        if not keyterms:
            return {}
        if not self._model.startswith(NOVA_3):
            if not self._keyterms_ignored_logged:
                self._keyterms_ignored_logged = True
                _log.warning("deepgram.keyterms_ignored", model=self._model)
            return {}
        fitting = fitting_keyterms(keyterms)
        if left_out := len(keyterms) - len(fitting):
            _log.info("deepgram.keyterms_left_out", count=left_out)
        return {KEYTERM: fitting}

    async def _try(self, samples: Pcm, options: Options, job_id: str) -> CloudRecognition:
        """Make one request. Cancelled once the whole body is out, it returns its answer if that comes in time.

        The exchange has a task of its own, so that a cancellation cannot part it from its answer. A second cancellation
        is immediate.
        """
        audio = FlacBody(samples)
        exchange = asyncio.create_task(
            self._exchange(audio, options, len(samples) / SAMPLE_RATE_HZ), name=f"deepgram-request:{job_id}"
        )
        try:
            return await asyncio.shield(exchange)
        except asyncio.CancelledError:
            if audio.exhausted:
                await asyncio.wait({exchange}, timeout=self._timeouts.cancelled_seconds)
            if not _succeeded(exchange):
                raise
            _log.info("deepgram.answered_when_cancelled", job_id=job_id)
            return replace(exchange.result(), interrupted=True)
        finally:
            exchange.add_done_callback(_succeeded)  # or asyncio would complain of a failure that was not looked at
            exchange.cancel()

    async def _exchange(self, audio: FlacBody, options: Options, audio_seconds: float) -> CloudRecognition:
        limit_seconds = self._timeouts.limit_seconds(audio_seconds)
        try:
            async with asyncio.timeout(limit_seconds):
                body = await self._post(audio, options, limit_seconds, answer_limit_bytes(audio_seconds))
                return await asyncio.to_thread(read_answer, body, audio_seconds)
        except (TimeoutError, httpx.ReadTimeout):
            failed = timed_out(limit_seconds, body_was_sent=audio.exhausted)
        except httpx.DecodingError:
            failed = unusable("its encoding is damaged")
        except (httpx.RequestError, httpx.InvalidURL) as exc:
            raise disconnected(exc, body_was_sent=audio.exhausted) from exc
        raise failed

    async def _post(self, audio: FlacBody, options: Options, limit_seconds: float, limit_bytes: int) -> bytes:
        """Send the audio and return the body of the answer. Raises `TryFailed` where it is none, or too large."""
        async with self._http.stream(
            "POST",
            self._url,
            params={"model": self._model, **options, **OPTIONS},
            headers={
                "authorization": f"Token {self._api_key}",
                "content-type": "audio/flac",
                "accept-encoding": "identity",  # what is unpacked can be a thousand times what came
            },
            content=audio,
            timeout=httpx.Timeout(
                limit_seconds, connect=self._timeouts.connect_seconds, write=self._timeouts.write_seconds
            ),
        ) as response:
            if not response.is_success:
                refusal = b""
                with suppress(httpx.RequestError, TimeoutError):  # the status says enough, and that nothing is billed
                    async with asyncio.timeout(self._timeouts.refusal_seconds):
                        refusal = await _begin_of_body(response, MOST_REFUSAL_BYTES)
                raise refused(
                    response.status_code, response.headers, refusal, secret=self._api_key, now=self._clock.now()
                )
            body = await _begin_of_body(response, limit_bytes + 1)
        if len(body) > limit_bytes:
            raise unusable(f"it is larger than {limit_bytes} bytes")
        return body


def language_of(language: str, model: str) -> dict[str, str]:
    """Return the parameters that name the language, or ask Deepgram to find it out."""
    if language != ANY_LANGUAGE:
        return {"language": language}
    return {"language": "multi"} if model == NOVA_3 else {"detect_language": "true"}


def fitting_keyterms(keyterms: Sequence[str]) -> list[str]:
    """Return the keyterms that should fit into one request, in their order; longer ones may be left out."""
    room, fitting = MOST_KEYTERM_TOKENS, []
    for term in keyterms:
        tokens = -(-len(term.encode()) // BYTES_PER_KEYTERM_TOKEN)
        if tokens <= room:
            room -= tokens
            fitting.append(term)
    return fitting


async def _begin_of_body(response: httpx.Response, most_bytes: int) -> bytes:
    """Return the body, or of a larger one about the first `most_bytes`; the rest is never held."""
    body = bytearray()
    async with aclosing(cast("AsyncGenerator[bytes]", response.aiter_bytes())) as pieces:
        async for piece in pieces:
            body += piece[: most_bytes - len(body)]
            if len(body) >= most_bytes:
                break
    return bytes(body)


def _succeeded(exchange: asyncio.Task[CloudRecognition]) -> bool:
    return exchange.done() and not exchange.cancelled() and exchange.exception() is None


def _sendable(api_key: str) -> str:
    """Strip the line end that files and secrets come with. httpx would quote a bad key in its error."""
    key = api_key.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError("the Deepgram API key must be one word of printable ASCII characters")
    return key
