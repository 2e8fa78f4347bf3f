"""Word errors of a transcript against a reference, and how far its word starts drift."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

_LEAST_ANCHORS = 5
_END_SHARE = 0.1
_GRAM = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class WordErrors:
    """Substituted, deleted and inserted words against the words of the reference."""

    errors: int
    words: int

    @property
    def percent(self) -> float:
        """The word error rate in per cent; 0 where both texts are empty."""
        return 100 * self.errors / max(1, self.words)

    def __add__(self, other: "WordErrors") -> "WordErrors":
        return WordErrors(errors=self.errors + other.errors, words=self.words + other.words)


@dataclass(frozen=True, slots=True)
class TimedWord:
    """A word and its start."""

    text: str
    start_seconds: float


def spoken_words(text: str) -> list[str]:
    """Return the words in lower case, of letters, digits and apostrophes alone."""
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))


def word_errors(reference: Sequence[str], written: Sequence[str]) -> WordErrors:
    """Count the fewest substitutions, deletions and insertions that turn one into the other (Levenshtein)."""
    numbers: dict[str, int] = {}
    columns = np.array([numbers.setdefault(word, len(numbers)) for word in written], dtype=np.int64)
    steps = np.arange(len(written) + 1)
    row = steps.copy()
    for count, word in enumerate(reference, start=1):
        following = np.empty_like(row)
        following[0] = count
        following[1:] = np.minimum(row[1:] + 1, row[:-1] + (columns != numbers.get(word, -1)))
        row = np.minimum.accumulate(following - steps) + steps  # insertions along the row
    return WordErrors(errors=int(row[-1]), words=len(reference))


def drift_seconds(reference: Sequence[TimedWord], written: Sequence[TimedWord]) -> float | None:
    """Return how much later the last tenth of the words is than the first tenth, against the reference.

    Words are paired where three in a row occur once in both. None where either end has fewer than five such words.
    """
    theirs = _anchors(reference)
    errors = [(start, written_start - start) for gram, written_start in _anchors(written).items()
              if (start := theirs.get(gram)) is not None]  # fmt: skip
    if not reference or not errors:
        return None
    length = reference[-1].start_seconds
    first = [error for start, error in errors if start <= length * _END_SHARE]
    last = [error for start, error in errors if start >= length * (1 - _END_SHARE)]
    if min(len(first), len(last)) < _LEAST_ANCHORS:
        return None
    return median(last) - median(first)


def _anchors(words: Sequence[TimedWord]) -> dict[tuple[str, ...], float]:
    """Return the start of every three words in a row that occur only once."""
    starts: dict[tuple[str, ...], float | None] = {}
    texts = [" ".join(spoken_words(word.text)) for word in words]
    for place, gram in enumerate(_grams(texts)):
        starts[gram] = None if gram in starts else words[place].start_seconds
    return {gram: start for gram, start in starts.items() if start is not None}


def _grams(texts: Sequence[str]) -> Iterable[tuple[str, ...]]:
    return zip(*(texts[offset:] for offset in range(_GRAM)), strict=False)
