"""A transcript against a reference: word errors, missing words, keyterms, drift, and the errors of its confidences."""

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from statistics import median
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from schemas.speech import Word
from worker.core.transcript.spelling import compared_words

HOLE_SECONDS = 1.5
"""A run of missing words that is longer is a hole."""

BINS = 15

Judged: TypeAlias = tuple[float, bool]
"""A word's confidence, and whether the word is right."""

Numbers: TypeAlias = NDArray[np.int32]
"""Words as numbers, or errors; shape (words,)."""

_WORD_SECONDS = 0.5
"""Assumed length of a run's last word, which ends by the next word: references have no ends."""
_LEAST_ANCHORS = 5
_END_SHARE = 0.1
_MOST_CELLS = 4_000_000
"""Size of a table of errors that is kept whole, 16 MB."""


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
    """Count the fewest substitutions, deletions and insertions between the two (Levenshtein)."""
    row = _last_row(*_numbered(reference, written))
    return WordErrors(errors=int(row[-1]), words=len(reference))


def matched_words(reference: Sequence[str], written: Sequence[str]) -> list[tuple[int, int]]:
    """Return the places of equal words in both, in an alignment with the fewest errors.

    Memory is linear in the number of words (Hirschberg).
    """
    return list(_matches(*_numbered(reference, written), 0, 0))


def _numbered(reference: Sequence[str], written: Sequence[str]) -> tuple[Numbers, Numbers]:
    numbers: dict[str, int] = {}
    one, other = (
        np.array([numbers.setdefault(word, len(numbers)) for word in words], np.int32) for words in (reference, written)
    )
    return one, other


def _rows(reference: Numbers, written: Numbers) -> Iterator[Numbers]:
    """Yield the errors of every beginning of `written` against no word of the reference, one, two and so on."""
    steps = np.arange(len(written) + 1, dtype=np.int32)
    row = steps.copy()
    yield row
    for count, word in enumerate(reference, start=1):
        following = np.empty_like(row)
        following[0] = count
        following[1:] = np.minimum(row[1:] + 1, row[:-1] + (written != word))
        row = np.minimum.accumulate(following - steps) + steps  # insertions along the row
        yield row


def _last_row(reference: Numbers, written: Numbers) -> Numbers:
    (last,) = deque(_rows(reference, written), maxlen=1)
    return last


def _matches(reference: Numbers, written: Numbers, at: int, written_at: int) -> Iterator[tuple[int, int]]:
    """Yield the matches of a part, whose first words are at these places."""
    if len(reference) * len(written) <= _MOST_CELLS or len(reference) == 1:
        yield from ((at + one, written_at + other) for one, other in _traced(reference, written))
        return
    half = len(reference) // 2
    errors = _last_row(reference[:half], written) + _last_row(reference[half:][::-1], written[::-1])[::-1]
    cut = int(np.argmin(errors))
    yield from _matches(reference[:half], written[:cut], at, written_at)
    yield from _matches(reference[half:], written[cut:], at + half, written_at + cut)


def _traced(reference: Numbers, written: Numbers) -> list[tuple[int, int]]:
    """Return the matches of a part whose table of errors fits into memory."""
    table = list(_rows(reference, written))
    one, other, found = len(reference), len(written), []
    while one and other:
        if reference[one - 1] == written[other - 1]:
            one, other = one - 1, other - 1
            found.append((one, other))
        elif table[one][other] == table[one - 1][other - 1] + 1:
            one, other = one - 1, other - 1
        elif table[one][other] == table[one - 1][other] + 1:
            one -= 1
        else:
            other -= 1
    return found[::-1]


@dataclass(frozen=True, kw_only=True, slots=True)
class KeytermScore:
    """Occurrences of keyterms."""

    spoken: int = 0
    """In the references."""
    written: int = 0
    """In the transcripts."""
    matched: int = 0
    """In both, at the same place."""

    @property
    def recall_percent(self) -> float | None:
        """Matched occurrences, of those spoken; None where none is spoken."""
        return 100 * self.matched / self.spoken if self.spoken else None

    @property
    def precision_percent(self) -> float | None:
        """Matched occurrences, of those written; None where none is written."""
        return 100 * self.matched / self.written if self.written else None

    def __add__(self, other: "KeytermScore") -> "KeytermScore":
        return KeytermScore(
            spoken=self.spoken + other.spoken,
            written=self.written + other.written,
            matched=self.matched + other.matched,
        )


def keyterm_score(keyterms: Iterable[str], reference: Sequence[str], written: Sequence[str]) -> KeytermScore:
    """Score one file's words, which are those of `spelling.compared_words`."""
    place_of, score = dict(matched_words(reference, written)), KeytermScore()
    for words in filter(None, map(compared_words, keyterms)):
        spoken, found = _places(words, reference), _places(words, written)
        matched = [
            at
            for at in spoken
            if (first := place_of.get(at, -1)) in found
            and all(place_of.get(at + step) == first + step for step in range(len(words)))
        ]
        score += KeytermScore(spoken=len(spoken), written=len(found), matched=len(matched))
    return score


def _places(words: Sequence[str], text: Sequence[str]) -> list[int]:
    return [at for at in range(len(text)) if text[at : at + len(words)] == words]


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
    for word, *gram in zip(words, texts, texts[1:], texts[2:], strict=False):
        starts[tuple(gram)] = None if tuple(gram) in starts else word.start_seconds
    return {gram: start for gram, start in starts.items() if start is not None}


def missing_runs(reference: Sequence[TimedWord], written: Sequence[TimedWord]) -> list[float]:
    """Return the seconds of every long run of missing words. A word that was written wrong is not missing."""
    spoken, found = _by_spoken_word(reference), _by_spoken_word(written)
    present = _present(spoken, found)
    runs = [list(run) for is_present, run in groupby(range(len(spoken)), present.__contains__) if not is_present]
    return [seconds for run in runs if (seconds := _seconds(spoken, run)) > HOLE_SECONDS]


def _by_spoken_word(words: Sequence[TimedWord]) -> list[TimedWord]:
    return [TimedWord(text, word.start_seconds) for word in words for text in spoken_words(word.text)]


def _present(spoken: Sequence[TimedWord], found: Sequence[TimedWord]) -> set[int]:
    """Return the places of words that were written; a wrong one is written for the nearest in time."""
    pairs = matched_words([word.text for word in spoken], [word.text for word in found])
    present = {place for place, _ in pairs}
    for (before, written_before), (after, written_after) in pairwise([(-1, -1), *pairs, (len(spoken), len(found))]):
        missing = set(range(before + 1, after))
        for word in found[written_before + 1 : written_after][: len(missing)]:
            _, nearest = min((abs(spoken[place].start_seconds - word.start_seconds), place) for place in missing)
            missing.remove(nearest)
            present.add(nearest)
    return present


def _seconds(spoken: Sequence[TimedWord], run: Sequence[int]) -> float:
    end = spoken[run[-1]].start_seconds + _WORD_SECONDS
    following = spoken[run[-1] + 1 : run[-1] + 2]
    return min([end, *(word.start_seconds for word in following)]) - spoken[run[0]].start_seconds


def judged_words(words: Sequence[Word], text: str) -> list[Judged]:
    """Judge each word by an alignment with the text. A word of several parts is right where all its parts are.

    Words without letters and digits are left out.
    """
    parts = [(place, part) for place, word in enumerate(words) for part in spoken_words(word.text)]
    matched = {number for _, number in matched_words(spoken_words(text), [part for _, part in parts])}
    wrong = {place for number, (place, _) in enumerate(parts) if number not in matched}
    places = dict.fromkeys(place for place, _ in parts)
    return [(words[place].confidence, place not in wrong) for place in places]


def reliability(judged: Sequence[Judged]) -> list[tuple[float, float, float]]:
    """Return mean confidence, share of right words and share of all words, of each of 15 bins that has words."""
    if not judged:
        return []
    sure, right = (np.array(column, np.float64) for column in zip(*judged, strict=True))
    place = np.minimum((sure * BINS).astype(np.int64), BINS - 1)
    inside = [place == number for number in range(BINS)]
    return [(float(sure[mask].mean()), float(right[mask].mean()), float(mask.mean())) for mask in inside if mask.any()]


def calibration_error(judged: Sequence[Judged]) -> float | None:
    """Return the expected calibration error: the mean gap between confidence and share of right words, by bins."""
    return sum(abs(sure - right) * share for sure, right, share in reliability(judged)) if judged else None
