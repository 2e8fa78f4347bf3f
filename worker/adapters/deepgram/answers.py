"""Deepgram's answer, checked: its SDK builds objects of whatever came."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.speech import Word
from worker.adapters.deepgram.refusals import unusable
from worker.ports import CloudRecognition

MOST_UNHEARD_SECONDS = 1.0
"""How much shorter than what we sent the audio may be that Deepgram says it heard."""

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class _Word(_Part):
    word: str
    punctuated_word: str | None = None
    start: Seconds
    end: Seconds
    confidence: float = Field(ge=0, le=1)


class _Alternative(_Part):
    transcript: str
    words: tuple[_Word, ...]


class _Channel(_Part):
    alternatives: tuple[_Alternative, ...] = Field(min_length=1)


class _Results(_Part):
    channels: tuple[_Channel, ...] = Field(min_length=1)


class _Metadata(_Part):
    request_id: str = Field(min_length=1, max_length=128)
    duration: Seconds


class _Answer(_Part):
    metadata: _Metadata
    results: _Results


def read_answer(answer: Any, sent_seconds: float) -> CloudRecognition:
    """The words of the SDK's object. Raises `TryFailed` where it is no transcript of the audio that was sent.

    A word is the word as written: `punctuated_word`. Under `smart_format` Deepgram writes what belongs together as one
    word ("2015.", "$5.50") from the first sound to the last, and the transcript may be split otherwise; only the words
    list has the times, so nothing is taken from the transcript. Times are passed on as they are, but for an end before
    its start. Deepgram bills `metadata.duration`, the seconds it decoded, by the second and not by the minute begun.
    """
    try:
        checked = _Answer.model_validate(answer)
    except ValidationError as exc:
        raise unusable(_first_fault(exc)) from None  # the whole error quotes what was said in the audio
    heard = checked.results.channels[0].alternatives[0]
    if heard.transcript and not heard.words:
        raise unusable("a transcript without words")
    if checked.metadata.duration < sent_seconds - MOST_UNHEARD_SECONDS:
        raise unusable(f"it heard {checked.metadata.duration:.1f} of {sent_seconds:.1f} s")
    return CloudRecognition(
        words=tuple(_word(word) for word in heard.words),
        request_id=checked.metadata.request_id,
        billed_seconds=checked.metadata.duration,
    )


def _word(said: _Word) -> Word:
    return Word(
        text=said.punctuated_word or said.word,
        start_seconds=said.start,
        end_seconds=max(said.start, said.end),
        confidence=said.confidence,
    )


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_input=False, include_url=False, include_context=False)[0]
    return f"{'.'.join(map(str, fault['loc'])) or 'answer'}: {fault['msg']}"
