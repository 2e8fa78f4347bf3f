"""Arithmetic of calibration: judged words, their error, the fit, and the reliability curve as a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from worker.adapters.parakeet.network.words import (
    Calibration,
    Token,
    near_scores,
    spoken_tokens,
    word_groups,
    word_score,
)
from worker.core.transcript.word_errors import matched_words, reliability, spoken_words

STEPS = 60
_SIDE, _MARGIN = 320, 46

Numbers: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class JudgedWord:
    """The probabilities of a word's spoken pieces, and whether the word is right."""

    pieces: tuple[float, ...]
    is_right: bool


Judged: TypeAlias = Sequence[JudgedWord]
"""The words of one window."""


def judged_words(tokens: Sequence[Sequence[Token]], text: str) -> list[Judged]:
    """Return the words of each window, judged by an alignment of all windows with the text.

    Words of several spoken parts, such as `twenty-two`, are right where all parts are.
    """
    groups = [word_groups(window) for window in tokens]
    parts = [
        (place, part)
        for place, group in enumerate(word for window in groups for word in window)
        for part in spoken_words("".join(token.piece for token in group).replace("▁", ""))
    ]
    matched = {place for _, place in matched_words(spoken_words(text), [part for _, part in parts])}
    wrong = {place for number, (place, _) in enumerate(parts) if number not in matched}
    known = {place for place, _ in parts}
    place, judged = 0, list[Judged]()
    for window in groups:
        words = []
        for group in window:
            if place in known:
                pieces = tuple(token.confidence for token in spoken_tokens(group))
                words.append(JudgedWord(pieces, place not in wrong))
            place += 1
        judged.append(words)
    return judged


def calibration_error(windows: Sequence[Judged], calibration: Calibration | None) -> float:
    """Return the expected calibration error: the mean gap between confidence and share of right words, by bins."""
    return sum(abs(sure - right) * share for sure, right, share in _bins(windows, calibration))


def fitted(windows: Sequence[Judged]) -> Calibration:
    """Fit the weights by logistic regression, with Newton's method."""
    rows, right = [], []
    for window in windows:
        scores = [word_score(word.pieces) for word in window]
        rows += [(own, near, 1.0) for own, near in zip(scores, near_scores(scores), strict=True)]
        right += [float(word.is_right) for word in window]
    inputs, truth = np.array(rows), np.array(right)
    weights = np.zeros(inputs.shape[1])
    for _ in range(STEPS):
        sure = 1 / (1 + np.exp(-(inputs @ weights)))
        slope = inputs.T @ (sure - truth)
        bend = (inputs * (sure * (1 - sure))[:, np.newaxis]).T @ inputs + 1e-3 * np.eye(len(weights))
        weights -= np.linalg.solve(bend, slope)
    own, near, bias = weights.tolist()
    return Calibration(temperature=1 / own, near=near, bias=bias)


def drawn(windows: Sequence[Judged], calibration: Calibration) -> str:
    """Return the reliability curves before and after as SVG."""
    size = _SIDE + 2 * _MARGIN

    def point(across: float, up: float) -> str:
        return f"{_MARGIN + across * _SIDE:.1f},{_MARGIN + (1 - up) * _SIDE:.1f}"

    def curve(found: Sequence[tuple[float, float, float]], colour: str) -> str:
        points = [(sure, right) for sure, right, share in found if share > 0.002]
        dots = "".join('<circle cx="{}" cy="{}" r="3"/>'.format(*point(*one).split(",")) for one in points)
        line = " ".join(point(*one) for one in points)
        return (
            f'<g fill="{colour}"><polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>{dots}</g>'
        )

    ticks = "".join(
        f'<text x="{_MARGIN + at * _SIDE:.0f}" y="{size - _MARGIN + 16}" text-anchor="middle">{at:g}</text>'
        f'<text x="{_MARGIN - 8}" y="{_MARGIN + (1 - at) * _SIDE + 4:.0f}" text-anchor="end">{at:g}</text>'
        for at in (0, 0.5, 1)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" font-family="sans-serif" font-size="12">'
        f'<rect width="{size}" height="{size}" fill="white"/>'
        f'<polyline points="{point(0, 0)} {point(1, 1)}" stroke="#999" stroke-dasharray="4 4"/>'
        f'<rect x="{_MARGIN}" y="{_MARGIN}" width="{_SIDE}" height="{_SIDE}" fill="none" stroke="#999"/>{ticks}'
        f"{curve(_bins(windows, None), '#c0392b')}{curve(_bins(windows, calibration), '#1f6fb2')}"
        f'<text x="{size / 2}" y="{size - 8}" text-anchor="middle">confidence</text>'
        f'<text x="12" y="{size / 2}" text-anchor="middle" transform="rotate(-90 12 {size / 2})">right words</text>'
        f'<text x="{_MARGIN + 10}" y="{_MARGIN + 20}" fill="#c0392b">weakest piece</text>'
        f'<text x="{_MARGIN + 10}" y="{_MARGIN + 38}" fill="#1f6fb2">calibrated</text></svg>\n'
    )


def _bins(windows: Sequence[Judged], calibration: Calibration | None) -> list[tuple[float, float, float]]:
    sure = (one for window in windows for one in _confidences(window, calibration))
    return reliability([*zip(sure, (word.is_right for window in windows for word in window), strict=True)])


def _confidences(window: Judged, calibration: Calibration | None) -> list[float]:
    if calibration is None:
        return [min(word.pieces) for word in window]
    return calibration.confidences([word.pieces for word in window])
