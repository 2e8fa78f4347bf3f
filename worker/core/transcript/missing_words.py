"""Runs of words that a transcript leaves out, against a reference with times."""

from collections.abc import Sequence
from itertools import groupby, pairwise

from worker.core.transcript.word_errors import TimedWord, matched_words, spoken_words

HOLE_SECONDS = 1.5
"""A run of missing words that is longer is a hole."""

_WORD_SECONDS = 0.5
"""Assumed length of a run's last word, which ends at the next word at the latest: references have no ends."""


def missing_runs(reference: Sequence[TimedWord], written: Sequence[TimedWord]) -> list[float]:
    """Return the seconds of every long run of missing words. A word that was written wrong is not missing."""
    spoken, found = _by_spoken_word(reference), _by_spoken_word(written)
    present = _present(spoken, found)
    runs = groupby(range(len(spoken)), key=present.__contains__)
    lengths = (_seconds(spoken, list(run)) for is_present, run in runs if not is_present)
    return [length for length in lengths if length > HOLE_SECONDS]


def _by_spoken_word(words: Sequence[TimedWord]) -> list[TimedWord]:
    return [TimedWord(text, word.start_seconds) for word in words for text in spoken_words(word.text)]


def _present(spoken: Sequence[TimedWord], found: Sequence[TimedWord]) -> set[int]:
    """Return the places of words that were written, right or wrong: a wrong one is written for the nearest in time."""
    pairs = matched_words([word.text for word in spoken], [word.text for word in found])
    present = {place for place, _ in pairs}
    for (before, written_before), (after, written_after) in pairwise([(-1, -1), *pairs, (len(spoken), len(found))]):
        missing = set(range(before + 1, after))
        for word in found[written_before + 1 : written_after]:
            if missing:
                _, nearest = min((abs(spoken[place].start_seconds - word.start_seconds), place) for place in missing)
                missing.remove(nearest)
        present.update(set(range(before + 1, after)) - missing)
    return present


def _seconds(spoken: Sequence[TimedWord], run: Sequence[int]) -> float:
    end = spoken[run[-1]].start_seconds + _WORD_SECONDS
    following = spoken[run[-1] + 1 : run[-1] + 2]
    return min([end, *(word.start_seconds for word in following)]) - spoken[run[0]].start_seconds
