"""Deepgram's answer, checked: bytes of JSON in, words that can be stored and rendered out.

A billed answer is refused only where it holds no transcript of the audio that was sent. Whatever Deepgram's SDK types
(`deepgram.types.listen_v1response*`) call optional may be missing or null here, and a single odd value (text that UTF-8
cannot hold, a number out of range or none at all, a null word) is mended rather than paid for again. The SDK does not
parse: it builds its objects on the event loop, in 0.26 s of 12,000 words, and from a body of any size.
"""

import json
import math
from collections.abc import Iterator, Sequence
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
from worker.adapters.deepgram.failures import unusable
from worker.ports import CloudRecognition

MOST_UNHEARD_SECONDS = 1.0
"""The most seconds by which Deepgram's duration may fall short of the audio sent."""
MOST_WORDS_PER_SECOND = 20
"""Three times what a fast speaker says; the timeline has room for a thousand."""
MOST_WORD_CHARACTERS = 1_000
MOST_REQUEST_ID_CHARACTERS = 128
LONGEST_INTEGER = 18
"""Digits. Python refuses to read integers of more than 4,300, and floats end at 309."""


def answer_limit_bytes(audio_seconds: float) -> int:
    """Return the largest body that can be a transcript of so much audio: ten times what fast speech comes to."""
    return (256 << 10) + int(audio_seconds * (4 << 10))


def read_answer(body: bytes, sent_seconds: float) -> CloudRecognition:
    """Return the words of an answer. Raises `TryFailed` where it is no transcript of the audio that was sent.

    A word is the word as written: `punctuated_word`. Under `smart_format` Deepgram writes what belongs together as one
    word ("2015.", "$5.50") from the first sound to the last, and the transcript may be split otherwise; only the words
    list has the times, so nothing is taken from the transcript. Deepgram bills `metadata.duration`, the seconds it
    decoded, by the second; `billed_seconds` is never more than was sent.
    """
    answer = _validated(body)
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
    """Return text, a number's too, without spaces around it; U+FFFD replaces what UTF-8 cannot hold: surrogates."""
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
    """Return None for text that is no number, and for lists and objects."""
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
        """Take null, NaN and infinity for a field, or an item of a list, that was left out."""
        if not isinstance(values, dict):
            return values
        return {name: _without_nulls(value) for name, value in values.items() if not _says_nothing(value)}


def _says_nothing(value: object) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def _without_nulls(value: object) -> object:
    return [item for item in value if item is not None] if isinstance(value, list) else value


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


def _validated(body: bytes) -> _Answer:
    try:
        answer = json.loads(body.decode("utf-8-sig", "replace"), parse_int=_integer)
    except (ValueError, RecursionError):
        raise unusable("it cannot be read as JSON") from None
    try:
        return _Answer.model_validate(answer)
    except ValidationError as exc:
        raise unusable(_first_fault(exc)) from None  # the whole error quotes the transcript


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
    return min(max(least, value), max(least, most))


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_input=False, include_url=False, include_context=False)[0]
    place: Sequence[str | int] = fault["loc"]
    return f"{'.'.join(map(str, place)) or 'answer'}: {fault['msg']}"
