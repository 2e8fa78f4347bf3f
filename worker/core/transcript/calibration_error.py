"""Distance of words' confidences from the share of words that are right."""

from collections.abc import Sequence

import numpy as np

from schemas.speech import Word
from worker.core.transcript.word_errors import matched_words, spoken_words

BINS = 15

Judged = tuple[float, bool]
"""A word's confidence, and whether the word is right."""


def judged_words(words: Sequence[Word], text: str) -> list[Judged]:
    """Judge each word by an alignment of all of them with the text. One of several parts is right where all parts are.

    Words of other characters than letters and digits are left out.
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
