"""Spelling of words: an engine's text cleaned, Deepgram's raw form of a word, and words compared with keyterms."""

import re
import unicodedata
from collections.abc import Iterable

_WORD = re.compile(r"[^\W_]+")
_FROM_FIRST_TO_LAST_LETTER = re.compile(r"[^\W_](?:.*[^\W_])?", re.DOTALL)
_POSSESSIVE = re.compile(r"['\N{RIGHT SINGLE QUOTATION MARK}]s\b")
_APOSTROPHE = re.compile(r"(?<=\w)['\N{RIGHT SINGLE QUOTATION MARK}](?=\w)")


def clean(text: str) -> str:
    """Return the text on one line, without control characters and lone surrogates."""
    if text.isascii() and text.isprintable() and " " not in text:
        return text
    held = "".join(char for char in text if char.isspace() or unicodedata.category(char) not in {"Cc", "Cs"})
    return " ".join(held.split())


def is_spoken(text: str) -> bool:
    """Return True where the text contains a letter or digit."""
    return _WORD.search(text) is not None


def with_sound(keyterms: Iterable[str]) -> tuple[str, ...]:
    """Return the keyterms that contain a letter or digit; others, such as `.*`, have no sound."""
    return tuple(filter(is_spoken, keyterms))


def raw_word(text: str) -> str:
    """Return Deepgram's raw `word` of a punctuated one: lower case, without punctuation at its ends.

    Punctuation inside stays, as in `don't` and `3.5`. Text without a letter or digit is returned unchanged.
    """
    spoken = _FROM_FIRST_TO_LAST_LETTER.search(text)
    return spoken[0].lower() if spoken else text


def closing_marks(text: str) -> str:
    """Return the characters after the last letter or digit."""
    spoken = _FROM_FIRST_TO_LAST_LETTER.search(text)
    return text[spoken.end() :] if spoken else text


def compared_words(text: str) -> list[str]:
    """Return the words without case, punctuation and a possessive's end: "Zed's" is the word "zed"."""
    folded = _POSSESSIVE.sub("", unicodedata.normalize("NFKC", text).casefold())
    return _WORD.findall(_APOSTROPHE.sub("", folded))


def keyterms_in(texts: Iterable[str], keyterms: Iterable[str]) -> tuple[str, ...]:
    """Return the keyterms whose words occur one after the other in the texts, in the order of the keyterms."""
    spoken = _joined(word for text in texts for word in compared_words(text))
    return tuple(term for term in keyterms if (words := compared_words(term)) and _joined(words) in spoken)


def _joined(words: Iterable[str]) -> str:
    return f" {' '.join(words)} "
