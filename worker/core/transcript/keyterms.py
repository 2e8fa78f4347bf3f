"""Keyterms in a transcript: whole words, whatever their case and punctuation."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

_POSSESSIVE = re.compile(r"['\N{RIGHT SINGLE QUOTATION MARK}]s\b")
_APOSTROPHE = re.compile(r"(?<=\w)['\N{RIGHT SINGLE QUOTATION MARK}](?=\w)")
_WORD = re.compile(r"[^\W_]+")


def with_sound(keyterms: Iterable[str]) -> tuple[str, ...]:
    """Return the keyterms that contain a letter or digit; others, such as `.*`, have no sound."""
    return tuple(term for term in keyterms if any(map(str.isalnum, term)))


class SpokenText:
    """A text by its spoken words, to look keyterms up in."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._words = _joined(word for text in texts for word in _words(text))

    def count(self, keyterm: str) -> int:
        """Return how often the words of the keyterm occur one after the other."""
        words = _words(keyterm)
        return self._words.count(_joined(words)) if words else 0

    def found(self, keyterms: Iterable[str]) -> tuple[str, ...]:
        """Return the keyterms that occur, in their order."""
        return tuple(term for term in keyterms if self.count(term))


@dataclass(frozen=True, kw_only=True, slots=True)
class KeytermScore:
    """Occurrences of keyterms in references and in transcripts."""

    spoken: int
    """In the references."""
    written: int
    """In the transcripts."""
    matched: int
    """In both: of each file and keyterm the smaller number."""

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


NO_KEYTERMS = KeytermScore(spoken=0, written=0, matched=0)


def keyterm_score(keyterms: Iterable[str], reference: SpokenText, transcript: SpokenText) -> KeytermScore:
    """Count the keyterms of one file."""
    counts = [(reference.count(term), transcript.count(term)) for term in keyterms]
    return KeytermScore(
        spoken=sum(spoken for spoken, _ in counts),
        written=sum(written for _, written in counts),
        matched=sum(map(min, counts)),
    )


def _words(text: str) -> list[str]:
    """Return the words without case, punctuation and a possessive's end: "Zed's" is the word "zed"."""
    folded = _POSSESSIVE.sub("", unicodedata.normalize("NFKC", text).casefold())
    return _WORD.findall(_APOSTROPHE.sub("", folded))


def _joined(words: Iterable[str]) -> str:
    """Return the words with a space on each side, so that neighbours share none and every occurrence is counted."""
    return "".join(f" {word} " for word in words)
