"""From decoded tokens to words with times and confidences: arithmetic, no model and no arrays."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from schemas.speech import Word

NEAR_WORDS = 2
"""Words on each side whose scores count, with the word's own, as those around it."""

_LEAST_PROBABILITY = 1e-4


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """Weights that make a model's confidences probabilities that a word is right: `python -m bench.calibration`.

    The model is surer than it should be, most of all in noise, where whole stretches are wrong. So a word's score is
    the logit of its pieces' mean probability over `temperature`, plus that of the words around it. The weights are
    fitted by logistic regression on speech whose words are known.
    """

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


WORD_START = "▁"
"""SentencePiece's mark on the piece that begins a word."""


@dataclass(frozen=True, slots=True)
class Token:
    """One piece of a word as the transducer emitted it.

    `frame` counts encoder frames from the window's first sample; `frames` is the predicted duration, zero included.
    `confidence` is the probability the model gave to this piece.
    """

    piece: str
    frame: int
    frames: int
    confidence: float

    @property
    def is_punctuation(self) -> bool:
        """True when nothing in the piece is ever spoken."""
        return not any(character.isalnum() for character in self.piece)


def words_of(
    tokens: Sequence[Token], *, frame_seconds: float, window_seconds: float, calibration: Calibration | None = None
) -> tuple[Word, ...]:
    """Join tokens into words: text as written, from the first piece's frame to the end of the last spoken one.

    Punctuation, which the model may emit long after the word, moves neither the word's end nor its confidence, which is
    that of the weakest spoken piece, or by the calibration where there is one. No word ends after the window.
    """
    groups = word_groups(tokens)
    words = tuple(_word(group, frame_seconds, window_seconds) for group in groups)
    if calibration is None:
        return words
    confidences = calibration.confidences([[token.confidence for token in spoken_tokens(group)] for group in groups])
    return tuple(replace(word, confidence=found) for word, found in zip(words, confidences, strict=True))


def word_groups(tokens: Sequence[Token]) -> list[list[Token]]:
    """Return the tokens of each word."""
    return [group for group in _groups(tokens) if _text(group)]


def spoken_tokens(group: Sequence[Token]) -> Sequence[Token]:
    """Return the tokens of a word without its punctuation; all of them where nothing else is there."""
    return [token for token in group if not token.is_punctuation] or group


def _groups(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    group: list[Token] = []
    for token in tokens:
        if token.piece.startswith(WORD_START):
            yield group
            group = []
        group.append(token)
    yield group


def _word(group: Sequence[Token], frame_seconds: float, window_seconds: float) -> Word:
    spoken = spoken_tokens(group)
    end_frame = spoken[-1].frame + spoken[-1].frames
    return Word(
        text=_text(group),
        start_seconds=min(group[0].frame * frame_seconds, window_seconds),
        end_seconds=min(end_frame * frame_seconds, window_seconds),
        confidence=min(token.confidence for token in spoken),
    )


def _text(group: Sequence[Token]) -> str:
    return "".join(token.piece for token in group).replace(WORD_START, "")
