"""Keyterms in a transcript: whole words, whatever their case and punctuation."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

_POSSESSIVE = re.compile(r"['\N{RIGHT SINGLE QUOTATION MARK}]s\b")
_APOSTROPHE = re.compile(r"(?<=\w)['\N{RIGHT SINGLE QUOTATION MARK}](?=\w)")
_WORD = re.compile(r"[^\W_]+")


def with_sound(keyterms: Iterable[str]) -> tuple[str, ...]:
    """Return the keyterms that contain a letter or digit; others, such as `.*`, have no sound."""
    return tuple(term for term in keyterms if any(map(str.isalnum, term)))


def compared_words(text: str) -> list[str]:
    """Return the words without case, punctuation and a possessive's end: "Zed's" is the word "zed"."""
    folded = _POSSESSIVE.sub("", unicodedata.normalize("NFKC", text).casefold())
    return _WORD.findall(_APOSTROPHE.sub("", folded))


def keyterms_in(texts: Iterable[str], keyterms: Iterable[str]) -> tuple[str, ...]:
    """Return the keyterms whose words occur one after the other in the texts, in the order of the keyterms."""
    spoken = _joined(word for text in texts for word in compared_words(text))
    compared = ((term, compared_words(term)) for term in keyterms)
    return tuple(term for term, words in compared if words and _joined(words) in spoken)


def _joined(words: Iterable[str]) -> str:
    return f" {' '.join(words)} "


@dataclass(frozen=True, kw_only=True, slots=True)
class KeytermScore:
    """Occurrences of keyterms in references and in transcripts."""

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


def keyterm_score(
    keyterms: Iterable[str], reference: Sequence[str], written: Sequence[str], pairs: Iterable[tuple[int, int]]
) -> KeytermScore:
    """Score one file's compared words; `pairs` are the places of equal words in an alignment of the two."""
    place_of, score = dict(pairs), KeytermScore()
    for term in keyterms:
        words = compared_words(term)
        spoken, found = list(_places(words, reference)), set(_places(words, written))
        whole = [[place_of.get(place + step) for step in range(len(words))] for place in spoken]
        matched = [places for places in whole if places[0] in found and _in_a_row(places)]
        score += KeytermScore(spoken=len(spoken), written=len(found), matched=len(matched))
    return score


def _places(words: Sequence[str], text: Sequence[str]) -> Iterator[int]:
    size = len(words)
    return (at for at in range(len(text) - size + 1) if size and text[at : at + size] == words)


def _in_a_row(places: Sequence[int | None]) -> bool:
    first = places[0]
    return first is not None and list(places) == list(range(first, first + len(places)))
