"""The spelling of single words: what is kept of an engine's text, and Deepgram's raw form of it."""

import unicodedata


def clean(text: str) -> str:
    """The text on one line, without what UTF-8, CSV or a caption cannot hold: controls and lone surrogates."""
    if text.isascii() and text.isprintable() and " " not in text:
        return text
    held = "".join(char for char in text if char.isspace() or unicodedata.category(char) not in {"Cc", "Cs"})
    return " ".join(held.split())


def is_spoken(text: str) -> bool:
    """Whether there is a letter or digit in it, and not punctuation or symbols alone."""
    return text.isalnum() or any(char.isalnum() for char in text)


def raw_word(text: str) -> str:
    """Deepgram's raw `word` of a punctuated one: lower case, no punctuation around it; inside, `don't` and `3.5` stay.

    Never empty where the text `is_spoken`; a text that is not comes back as it is.
    """
    if text.isalnum():
        return text.lower()
    spoken = [i for i, char in enumerate(text) if char.isalnum()]
    return text[spoken[0] : spoken[-1] + 1].lower() if spoken else text


def closing_marks(text: str) -> str:
    """What follows the last letter or digit."""
    if text[-1:].isalnum():
        return ""
    return text[max((i + 1 for i, char in enumerate(text) if char.isalnum()), default=0) :]
