"""Calibrated confidences of words: probabilities that a word is right, from the model's probabilities of its pieces.

The model is surer than it should be, most of all in noise, where whole stretches are wrong. So a word's score is the
logit of its pieces' mean probability over a temperature, plus that of the words around it. The weights are fitted by
logistic regression on speech whose words are known: `python -m bench.calibration`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

NEAR_WORDS = 2
"""Words on each side whose scores count, with the word's own, as those around it."""

_LEAST_PROBABILITY = 1e-4


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """Weights of a model's calibration. `temperature` divides the word's own score; above 1 it lowers sureness."""

    temperature: float
    near: float
    bias: float

    def confidences(self, words: Sequence[Sequence[float]]) -> list[float]:
        """Return the confidence of each word of a window, from the probabilities of its spoken pieces.

        Each word has at least one piece. The result depends on the window alone.
        """
        scores = [word_score(pieces) for pieces in words]
        return [
            _probability(own / self.temperature + self.near * near + self.bias)
            for own, near in zip(scores, near_scores(scores), strict=True)
        ]


def word_score(pieces: Sequence[float]) -> float:
    """Return the logit of the geometric mean of the pieces' probabilities."""
    mean = math.exp(fmean(math.log(max(piece, _LEAST_PROBABILITY)) for piece in pieces))
    bounded = min(max(mean, _LEAST_PROBABILITY), 1 - _LEAST_PROBABILITY)
    return math.log(bounded / (1 - bounded))


def near_scores(scores: Sequence[float]) -> list[float]:
    """Return for each word the mean score of the words around it, its own included."""
    return [fmean(scores[max(0, place - NEAR_WORDS) : place + NEAR_WORDS + 1]) for place in range(len(scores))]


def _probability(score: float) -> float:
    return 1 / (1 + math.exp(-max(-50.0, min(50.0, score))))
