"""A transcript artefact as paragraphs of words with their times and confidences. Pure."""

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
    """Return the artefact's first channel; None for a document of another shape."""
    try:
        response = _Response.model_validate(document)
        alternative = response.results.channels[0].alternatives[0]
    except (ValidationError, IndexError):
        return None
    words = [
        SpokenWord(text=word.punctuated_word, start_seconds=word.start, confidence=word.confidence)
        for word in alternative.words
    ]
    paragraphs, used = [], 0
    for paragraph in alternative.paragraphs.paragraphs:
        of_it = words[used : used + paragraph.num_words]
        paragraphs.append(SpokenParagraph(start_seconds=paragraph.start, words=of_it))
        used += paragraph.num_words
    return Transcript(paragraphs=paragraphs, duration_seconds=response.metadata.duration, audio_src=audio_src)
