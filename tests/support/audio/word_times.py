"""Errors of word times."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

TimedWord = tuple[float, str]

REACH_SECONDS = 0.6
"""Largest error of a matched word in seconds; a word that differs more counts as missing."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """Words of a file, held against those that are known to be in it."""

    expected: int
    found: int
    median_seconds: float
    worst_seconds: float

    @property
    def share(self) -> float:
        """Share of the expected words that are missing."""
        return self.found / self.expected


def match(expected: Sequence[TimedWord], heard: Sequence[TimedWord]) -> Match:
    """Match each expected word with the nearest one like it, at most `REACH_SECONDS` away."""
    errors = []
    for start, word in expected:
        near = [abs(there - start) for there, like in heard if like == word and abs(there - start) < REACH_SECONDS]
        errors += [min(near)] if near else []
    return Match(
        expected=len(expected),
        found=len(errors),
        median_seconds=statistics.median(errors) if errors else 0.0,
        worst_seconds=max(errors, default=0.0),
    )
