"""A transcript artefact as paragraphs of words with their times and confidences. Pure."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from worker.adapters.web.views import SpokenParagraph, SpokenWord, Transcript


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Word(_Part):
    punctuated_word: str
    start: float
    confidence: float


class _Paragraph(_Part):
    start: float
    num_words: int


class _Paragraphs(_Part):
    paragraphs: tuple[_Paragraph, ...]


class _Alternative(_Part):
    words: tuple[_Word, ...]
    paragraphs: _Paragraphs


class _Channel(_Part):
    alternatives: tuple[_Alternative, ...]


class _Results(_Part):
    channels: tuple[_Channel, ...]


class _Metadata(_Part):
    duration: float


class _Response(_Part):
    metadata: _Metadata
    results: _Results


def read_transcript(document: Any, *, audio_src: str = "") -> Transcript | None:
    """Return the paragraphs of all channels by their start; None for a document of another shape."""
    try:
        response = _Response.model_validate(document)
        alternatives = [channel.alternatives[0] for channel in response.results.channels]
    except (ValidationError, IndexError):
        return None
    if not alternatives:
        return None
    numbers = range(1, len(alternatives) + 1) if len(alternatives) > 1 else [None]
    apart = [_paragraphs(one, number) for one, number in zip(alternatives, numbers, strict=True)]
    paragraphs = sorted((paragraph for channel in apart for paragraph in channel), key=lambda one: one.start_seconds)
    return Transcript(paragraphs=paragraphs, duration_seconds=response.metadata.duration, audio_src=audio_src)


def _paragraphs(alternative: _Alternative, channel: int | None) -> Iterator[SpokenParagraph]:
    words = iter(alternative.words)
    for paragraph in alternative.paragraphs.paragraphs:
        yield SpokenParagraph(
            start_seconds=paragraph.start,
            words=[
                SpokenWord(text=word.punctuated_word, start_seconds=word.start, confidence=word.confidence)
                for word in islice(words, paragraph.num_words)
            ],
            channel=channel,
        )
