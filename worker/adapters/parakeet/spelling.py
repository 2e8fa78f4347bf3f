"""Spelling of terms by the pieces of a vocabulary; without torch, for both processes."""

import re
import unicodedata
from collections.abc import Sequence

from worker.adapters.parakeet.network.words import WORD_START

_CONTROL = re.compile(r"<.*>")
"""Control pieces: unknown, padding, languages, bytes."""


def spelling(text: str) -> str:
    """Return the letters of a term or a piece as they are compared: composed, in lower case, each word marked."""
    return "".join(WORD_START + word for word in unicodedata.normalize("NFKC", text).lower().split())


def spelling_of_piece(piece: str) -> str:
    """Return the letters that a piece spells; empty for a control piece."""
    return "" if _CONTROL.fullmatch(piece) else unicodedata.normalize("NFKC", piece).lower()


class Speller:
    """The texts that pieces can spell."""

    def __init__(self, pieces: Sequence[str]) -> None:
        self._pieces = frozenset(map(spelling_of_piece, pieces)) - {""}
        self._longest = max(map(len, self._pieces), default=0)

    def can_spell(self, term: str) -> bool:
        """Return True where some sequence of pieces spells the term, in any case of its letters."""
        letters = spelling(term)
        reached = {0}
        for start in range(len(letters)):
            if start in reached:
                ends = range(start + 1, min(start + self._longest, len(letters)) + 1)
                reached.update(end for end in ends if letters[start:end] in self._pieces)
        return bool(letters) and len(letters) in reached
