"""Accuracy of a transcript: word error rate, and errors of word starts.

Words are separated by blanks. Two rates are computed, as in papers: `written` compares words with their case and
punctuation; `spoken` compares them in lower case with only letters, digits and apostrophes, as in words.csv. A word
error is a substitution, a deletion or an insertion; the rate is errors per spoken word.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import jiwer

from tests.support.audio.speech_bank import Reference

SAMPLE_TEXT = (
    "What is your number? Anna will take the old car tomorrow. "
    "Close three black box for Maria. Please find the white book. "
    "The market is three five east of the city. Turn on the light in the school now. "
    "David will open the good phone today. "
    "Find ten yellow ticket for Helen."
)
"""The words of the worker's built-in sample, with case and punctuation."""


@dataclass(frozen=True, kw_only=True)
class WordErrorRate:
    """In per cent."""

    written: float
    spoken: float


@dataclass(frozen=True)
class HeardWord:
    """A word of a transcript and its start in the file."""

    text: str
    start_seconds: float


@dataclass(frozen=True)
class StartError:
    """True start of a correctly recognised word, and the transcript's delay."""

    at_seconds: float
    error_seconds: float


def as_spoken(text: str) -> str:
    """Lower case, letters, digits and apostrophes, single blanks."""
    return " ".join(re.sub(r"[^a-z0-9' ]", "", text.lower()).split())


def word_error_rate(said: Sequence[str], heard: Sequence[str]) -> WordErrorRate:
    """Return the error rate of several pairs of texts: the sum of errors over the sum of words."""
    return WordErrorRate(
        written=_rate(said, heard),
        spoken=_rate([as_spoken(text) for text in said], [as_spoken(text) for text in heard]),
    )


def start_errors(reference: Reference, heard: Sequence[HeardWord]) -> list[StartError]:
    """Return one entry for every correctly recognised word whose true start is known, in the order of the file."""
    truth = list(_starts(reference))
    heard = [word for word in heard if as_spoken(word.text)]
    said = [as_spoken(word) for word in reference.text.split()]
    output = jiwer.process_words(" ".join(said), " ".join(as_spoken(word.text) for word in heard))
    pairs = [
        (truth[chunk.ref_start_idx + offset], heard[chunk.hyp_start_idx + offset].start_seconds)
        for chunk in output.alignments[0]
        if chunk.type == "equal"
        for offset in range(chunk.ref_end_idx - chunk.ref_start_idx)
    ]
    return [StartError(start, guess - start) for start, guess in pairs if start is not None]


def median_start_error(errors: Iterable[StartError], from_seconds: float, to_seconds: float) -> float:
    """The middle one of the errors in that part of the file, with its sign."""
    return median(error.error_seconds for error in errors if from_seconds <= error.at_seconds < to_seconds)


def _rate(said: Sequence[str], heard: Sequence[str]) -> float:
    return 100 * float(jiwer.wer(list(said), list(heard)))


def _starts(reference: Reference) -> Iterable[float | None]:
    for utterance in reference.utterances:
        yield from utterance.word_starts or [None] * len(utterance.text.split())
