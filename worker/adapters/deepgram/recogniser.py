"""Deepgram as the worker's paid speech service.

For the operator. The key needs the scope `usage:write` and a project with credit; the model must be open to it. Every
worker of the pool draws on the project's one limit of concurrent requests (50 to 100, by plan). The key is sent in the
Authorization header and stands nowhere else: not in logs, errors or reprs.

A request cannot be taken back: what was sent whole is billed, whether or not its answer came. So we wait long, repeat
least what may have been billed, and keep no connections: a request on a stale one would fail like one that was paid.
"""

import asyncio
import random
from dataclasses import dataclass, replace
from typing import Any, Self

import httpx
from deepgram import AsyncDeepgramClient
from deepgram.core.api_error import ApiError
from deepgram.core.request_options import RequestOptions
from deepgram.environment import DeepgramClientEnvironment

from worker.adapters.deepgram.answers import read_answer
from worker.adapters.deepgram.breaker import CircuitBreaker
from worker.adapters.deepgram.flac import CONTENT_TYPE, FlacStream
from worker.adapters.deepgram.refusals import disconnected, refused, timed_out, unusable
from worker.adapters.deepgram.retries import Retries, Tries
from worker.ports import SAMPLE_RATE_HZ, Clock, CloudRecognition, Pcm

OPTIONS: dict[str, Any] = {"smart_format": True, "punctuate": True, "paragraphs": True, "filler_words": True}
"""What the pipeline asks for today, besides model and language."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long one try may take. Deepgram works for 600 s at most, and is mostly far faster than real time."""

    least_seconds: float = 60.0
    seconds_per_audio_second: float = 0.5
    most_seconds: float = 660.0
    connect_seconds: float = 10.0
    write_seconds: float = 30.0
    """Without the network taking a single byte: such a request was not sent whole, and costs nothing."""

    def limit_seconds(self, audio_seconds: float) -> float:
        """For the whole try, from the first byte to the last."""
        return min(self.least_seconds + self.seconds_per_audio_second * audio_seconds, self.most_seconds)


class DeepgramRecogniser:
    """`worker.ports.CloudRecogniser` on deepgram-sdk; `async with` gives it its connections.

    At most `max_concurrent` chunks are under way at once, their waits between tries included, so that a service that
    asks for less gets less. Raises `ValueError` for a key that cannot be sent.
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
        retries: Retries | None = None,
        patience: Patience | None = None,
        breaker: CircuitBreaker | None = None,
    ) -> None:
        self._api_key, self._base_url = _sendable(api_key), base_url
        self._model = model
        self._slots = asyncio.Semaphore(max_concurrent)
        self._clock, self._rng = clock, rng
        self._retries, self._patience = retries or Retries(), patience or Patience()
        self._breaker = breaker or CircuitBreaker(clock.monotonic)

    @property
    def model_name(self) -> str:
        """The service's model, as it is asked for."""
        return self._model

    async def __aenter__(self) -> Self:
        self._http = httpx.AsyncClient(limits=httpx.Limits(max_keepalive_connections=0), follow_redirects=False)
        client = AsyncDeepgramClient(
            api_key=self._api_key,
            environment=_environment(self._base_url),
            httpx_client=self._http,
            max_retries=0,  # it would send an exhausted stream again, and report success for no audio
        )
        self._media = client.listen.v1.media  # the SDK imports it now: half a second that no request shall wait
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def recognise(self, samples: Pcm, *, language: str, job_id: str) -> CloudRecognition:
        """See the port. Waits for a free slot first; then fails at once where Deepgram has been failing."""
        async with self._slots:
            with self._breaker.guard():
                tries = Tries(self._retries, self._clock, self._rng, job_id)
                heard = await tries.run(lambda: self._try(samples, language))
                return replace(heard, wasted_requests=tries.wasted)

    async def _try(self, samples: Pcm, language: str) -> CloudRecognition:
        audio = FlacStream(samples)
        audio_seconds = len(samples) / SAMPLE_RATE_HZ
        answer = await self._send(audio, language, self._patience.limit_seconds(audio_seconds))
        return read_answer(answer, audio_seconds)

    async def _send(self, audio: FlacStream, language: str, limit_seconds: float) -> object:
        started = self._clock.monotonic()
        try:
            async with asyncio.timeout(limit_seconds):
                return await self._media.transcribe_file(
                    request=audio,
                    model=self._model,
                    language=language,
                    request_options=self._request_options(limit_seconds),
                    **OPTIONS,
                )
        except ApiError as exc:
            waited = self._clock.monotonic() - started
            failed = refused(exc, secret=self._api_key, now=self._clock.now(), waited_seconds=waited)
        except (TimeoutError, httpx.ReadTimeout):
            failed = timed_out(limit_seconds, body_was_sent=audio.exhausted)
        except httpx.RequestError as exc:
            raise disconnected(exc, body_was_sent=audio.exhausted) from exc
        except (ValueError, RecursionError):  # what json raises besides JSONDecodeError, which the SDK knows
            failed = unusable("it cannot be read as JSON")
        raise failed

    def _request_options(self, limit_seconds: float) -> RequestOptions:
        timeout = httpx.Timeout(
            limit_seconds, connect=self._patience.connect_seconds, write=self._patience.write_seconds
        )
        return RequestOptions(
            timeout=timeout,  # type: ignore[typeddict-item] # handed to httpx as it is
            max_retries=0,
            additional_headers={"content-type": CONTENT_TYPE},
        )


def _sendable(api_key: str) -> str:
    """Without the line end that files and secrets come with. httpx would quote a bad one in its error."""
    key = api_key.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError("the Deepgram API key must be one word of printable ASCII characters")
    return key


def _environment(base_url: str | None) -> DeepgramClientEnvironment:
    if base_url is None:
        return DeepgramClientEnvironment.PRODUCTION
    return DeepgramClientEnvironment(base=base_url, production=base_url, agent=base_url, agent_rest=base_url)
