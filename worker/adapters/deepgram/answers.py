"""Results of a request to Deepgram: words that can be stored and rendered, or a failure, its class and its cost.

| failure                                        | error                 | repeated | may be billed         |
| ---------------------------------------------- | --------------------- | -------- | --------------------- |
| 400, 413, 414, 415, 422: this request          | `DeepgramRejected`    | no       | no                    |
| 401, 403                                       | `DeepgramAuthError`   | no       | no                    |
| 402                                            | `DeepgramQuotaError`  | no       | no                    |
| 429                                            | `DeepgramQuotaError`  | yes      | no                    |
| 408, 5xx, redirects                            | `DeepgramDown`        | yes      | no                    |
| any other 4xx                                  | `DeepgramDown`        | no       | no                    |
| not connected, broken before the body was out  | `DeepgramDown`        | yes      | no                    |
| broken when the body was out                   | `DeepgramUnavailable` | once     | yes                   |
| no answer in time                              | `TranscriptionTimeout`| no       | when the body was out |
| a success whose body is no transcript          | `DeepgramUnusable`    | once     | yes                   |

`DeepgramDown` and its subclasses are what one request saw. The circuit breaker knows the others, and has the last word.

A billed answer is refused only where it holds no transcript of the audio that was sent: what Deepgram's SDK types call
optional may be missing or null, and a single odd value (text that UTF-8 cannot hold, a number out of range or none at
all, a null word) is mended rather than paid for again. The SDK does not validate: it builds its objects on the event
loop, in 0.26 s of 12,000 words, and from a body of any size.
"""

import email.utils
import json
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from schemas.speech import Word
from worker.errors import (
    DeepgramAuthError,
    DeepgramDown,
    DeepgramQuotaError,
    DeepgramRejected,
    DeepgramUnavailable,
    DeepgramUnusable,
    PaidServiceError,
    TranscriptionTimeout,
)
from worker.ports import CloudRecognition

ENGINE = "deepgram"
MOST_REASON_CHARACTERS = 300

OF_THE_REQUEST = frozenset({400, 413, 414, 415, 422})
"""The audio or its options do not suit; any other refusal would meet every request alike."""
REPEATED = frozenset({408, 429})
"""Besides everything that is not 4xx."""
MOST_UNHEARD_SECONDS = 1.0
"""The most seconds by which Deepgram's duration may fall short of the audio sent."""
MOST_WORDS_PER_SECOND = 20
"""Three times what a fast speaker says; the timeline has room for a thousand."""
MOST_WORD_CHARACTERS = 1_000
MOST_REQUEST_ID_CHARACTERS = 128
LONGEST_INTEGER = 18
"""Digits. Python refuses to read integers of more than 4,300, and floats end at 309."""


class TryFailed(Exception):
    """One try brought no transcript. `error` is what the caller gets when it is not repeated."""

    def __init__(
        self,
        error: PaidServiceError,
        *,
        is_worth_repeating: bool = False,
        was_wasted: bool = False,
        retry_after_seconds: float | None = None,
    ) -> None:
        self.error, self.is_worth_repeating = error, is_worth_repeating
        self.was_wasted, self.retry_after_seconds = was_wasted, retry_after_seconds
        super().__init__(str(error))


def refused(status: int, headers: Mapping[str, str], body: bytes, *, secret: str, now: datetime) -> TryFailed:
    """Translate an HTTP status other than success. Should the service repeat our key, the `secret` is hidden."""
    reason = _reason(body.decode("utf-8", "replace"), headers, secret)
    error: PaidServiceError = DeepgramDown(f"status {status}: {reason}")
    if status in {401, 403}:
        error = DeepgramAuthError(status, reason)
    elif status in {402, 429}:
        error = DeepgramQuotaError(status, reason)
    elif status in OF_THE_REQUEST:
        error = DeepgramRejected(status, reason)
    return TryFailed(
        error,
        is_worth_repeating=not 400 <= status < 500 or status in REPEATED,  # noqa: PLR2004 - HTTP's numbers
        retry_after_seconds=parse_retry_after(headers.get("retry-after"), now),
    )


def disconnected(failure: Exception, *, body_was_sent: bool) -> TryFailed:
    """Error of a connection that could not be made, or broke."""
    reason = f"the connection failed: {type(failure).__name__}: {failure}"[:MOST_REASON_CHARACTERS]
    return TryFailed(
        DeepgramUnavailable(reason) if body_was_sent else DeepgramDown(reason),
        is_worth_repeating=True,
        was_wasted=body_was_sent,
    )


def timed_out(seconds: float, *, body_was_sent: bool) -> TryFailed:
    """Error of a request without an answer in time. Not repeated: it would cost as much time again."""
    return TryFailed(TranscriptionTimeout(ENGINE, seconds), was_wasted=body_was_sent)


def unusable(reason: str) -> TryFailed:
    """Error of a billed success that contains no transcript."""
    return TryFailed(DeepgramUnusable(reason), is_worth_repeating=True, was_wasted=True)


def _reason(text: str, headers: Mapping[str, str], secret: str) -> str:
    """Return the service's reason, from any of its three shapes: two JSON objects and plain text."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        body = text
    fields: Mapping[str, Any] = body if isinstance(body, Mapping) else {}
    said = [fields.get(name) for name in ("err_code", "category", "err_msg", "message", "details")]
    reason = ": ".join(str(part) for part in said if part) or str(body or "no reason given")
    request_id = str(fields.get("request_id") or headers.get("dg-request-id") or "")
    shown = _shown(reason.replace(secret, "[key]"))[:MOST_REASON_CHARACTERS]
    return f"{shown} (request {_shown(request_id)[:MOST_REASON_CHARACTERS]})" if request_id else shown


def _shown(text: str) -> str:
    """Return one line, without what a terminal, a log or UTF-8 would stumble over."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Return the seconds from `now` of a Retry-After header in either form; None for any other value."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = _until(value, now)
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _until(http_date: str, now: datetime) -> float:
    try:
        moment = email.utils.parsedate_to_datetime(http_date)
    except (ValueError, OverflowError):
        return math.nan
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - now).total_seconds()


def answer_limit_bytes(audio_seconds: float) -> int:
    """Return the largest body that can be a transcript of so much audio: ten times what fast speech comes to."""
    return (256 << 10) + int(audio_seconds * (4 << 10))


def read_answer(body: bytes, sent_seconds: float) -> CloudRecognition:
    """Return the words of an answer. Raises `TryFailed` where it is no transcript of the audio that was sent.

    A word is `punctuated_word`: under `smart_format` what belongs together is one word ("2015.", "$5.50"), and the
    transcript, which has no times, may be split otherwise. Deepgram bills `metadata.duration`, the seconds it decoded,
    by the second; `billed_seconds` is never more than was sent.
    """
    try:
        document = json.loads(body.decode("utf-8-sig", "replace"), parse_int=_integer)
    except (ValueError, RecursionError):
        raise unusable("it cannot be read as JSON") from None
    try:
        answer = _Answer.model_validate(document)
    except ValidationError as exc:  # as a whole it quotes the transcript
        fault = exc.errors(include_input=False, include_url=False, include_context=False)[0]
        raise unusable(f"{'.'.join(map(str, fault['loc'])) or 'answer'}: {fault['msg']}") from None
    best = answer.results.channels[0].alternatives[0]
    if len(best.words) > MOST_WORDS_PER_SECOND * (sent_seconds + 1):
        raise unusable(f"{len(best.words)} words in {sent_seconds:.1f} s")
    words = tuple(_words(best, sent_seconds))
    if best.transcript and not words:
        raise unusable("a transcript without words")
    if answer.metadata.duration < sent_seconds - MOST_UNHEARD_SECONDS:
        raise unusable(f"it heard {answer.metadata.duration:.1f} of {sent_seconds:.1f} s")
    return CloudRecognition(
        words=words,
        request_id=answer.metadata.request_id,
        billed_seconds=min(answer.metadata.duration, sent_seconds),
    )


def _text(value: object) -> object:
    """Return text, a number's too, without spaces around it; U+FFFD replaces surrogates, which UTF-8 cannot hold."""
    if isinstance(value, int | float):
        return str(value)
    if not isinstance(value, str):
        return value
    text = value.strip()
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _name(value: object) -> object:
    """Keep the characters of an id that are safe in logs, tables and headers."""
    text = str(value) if isinstance(value, str | int) else ""
    return "".join(char for char in text if "!" <= char <= "~")[:MOST_REQUEST_ID_CHARACTERS]


def _number_or_none(value: object, validate: ValidatorFunctionWrapHandler) -> Any:
    """Return None for anything but a number."""
    try:
        return validate(value)
    except ValidationError:
        return None


Text = Annotated[str, BeforeValidator(_text)]
Number = Annotated[float | None, WrapValidator(_number_or_none)]
RequestId = Annotated[str, BeforeValidator(_name), Field(min_length=1)]


class _Part(BaseModel):
    @model_validator(mode="before")
    @classmethod
    def _leave_out(cls, values: Any) -> Any:
        """Take null, NaN and infinity for a field, and null for an item of a list, that was left out."""
        if not isinstance(values, dict):
            return values
        return {
            name: [item for item in value if item is not None] if isinstance(value, list) else value
            for name, value in values.items()
            if value is not None and not (isinstance(value, float) and not math.isfinite(value))
        }


class _Word(_Part):
    word: Text = ""
    punctuated_word: Text = ""
    start: Number = None
    end: Number = None
    confidence: Number = None


class _Alternative(_Part):
    transcript: Text = ""
    confidence: Number = None
    words: tuple[_Word, ...] = ()


class _Channel(_Part):
    # The SDK calls `alternatives` optional too. Without one there is no transcript, and an empty one would lose speech.
    alternatives: tuple[_Alternative, ...] = Field(min_length=1)


class _Results(_Part):
    channels: tuple[_Channel, ...] = Field(min_length=1)


class _Metadata(_Part):
    request_id: RequestId
    duration: float = Field(ge=0)


class _Answer(_Part):
    metadata: _Metadata
    results: _Results


def _integer(digits: str) -> float:
    return int(digits) if len(digits) <= LONGEST_INTEGER else float(digits)


def _words(best: _Alternative, sent_seconds: float) -> Iterator[Word]:
    """Yield words with `0 <= start <= end <= sent_seconds`; one without a start begins where the last one ended."""
    last_end = 0.0
    for said in best.words:
        text = (said.punctuated_word or said.word)[:MOST_WORD_CHARACTERS]
        start = _between(0.0, last_end if said.start is None else said.start, sent_seconds)
        last_end = _between(start, start if said.end is None else said.end, sent_seconds)
        confidence = best.confidence if said.confidence is None else said.confidence
        if text:
            yield Word(text, start, last_end, _between(0.0, confidence or 0.0, 1.0))


def _between(least: float, value: float, most: float) -> float:
    return max(least, min(value, most))
