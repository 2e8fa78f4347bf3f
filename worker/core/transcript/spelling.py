"""Spelling of single words: cleaning an engine's text, and Deepgram's raw form of it."""

import unicodedata


def clean(text: str) -> str:
    """Return the text on one line, without control characters and lone surrogates."""
    if text.isascii() and text.isprintable() and " " not in text:
        return text
    held = "".join(char for char in text if char.isspace() or unicodedata.category(char) not in {"Cc", "Cs"})
    return " ".join(held.split())


def is_spoken(text: str) -> bool:
    """Return True where the text contains a letter or digit."""
    return text.isalnum() or any(char.isalnum() for char in text)


def raw_word(text: str) -> str:
    """Return Deepgram's raw `word` of a punctuated one: lower case, without punctuation at its ends.

    Punctuation inside stays, as in `don't` and `3.5`. Text without a letter or digit is returned unchanged.
    """
    if text.isalnum():
        return text.lower()
    spoken = [i for i, char in enumerate(text) if char.isalnum()]
    return text[spoken[0] : spoken[-1] + 1].lower() if spoken else text


def closing_marks(text: str) -> str:
    """Return the characters after the last letter or digit."""
    if text[-1:].isalnum():
        return ""
    return text[max((i + 1 for i, char in enumerate(text) if char.isalnum()), default=0) :]
