"""Keyterms of a job: names and terms that the engines should prefer (contract, section 1)."""

import unicodedata
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

MAX_KEYTERMS = 100
MAX_KEYTERM_CHARACTERS = 60
MAX_KEYTERM_WORDS = 6

_CONTROL = frozenset({"Cc", "Cs", "Zl", "Zp"})


def _keyterm(text: str) -> str:
    """Return the term composed (NFC), with single spaces between its words. Raises `ValueError` with all its faults."""
    if any(unicodedata.category(char) in _CONTROL for char in text):
        raise ValueError("must not contain control characters")
    words = unicodedata.normalize("NFC", text).split()
    term = " ".join(words)
    if not term:
        raise ValueError("must not be empty")
    faults = []
    if len(term) > MAX_KEYTERM_CHARACTERS:
        faults.append(f"at most {MAX_KEYTERM_CHARACTERS} characters, not {len(term)}")
    if len(words) > MAX_KEYTERM_WORDS:
        faults.append(f"at most {MAX_KEYTERM_WORDS} words, not {len(words)}")
    if faults:
        raise ValueError(f"must have {' and '.join(faults)}")
    return term


def _few_enough(value: Any) -> Any:
    """Refuse a long list before its items are validated."""
    if isinstance(value, list | tuple) and len(value) > MAX_KEYTERMS:
        raise ValueError(f"must have at most {MAX_KEYTERMS} items, not {len(value)}")
    return value


def _each_once(terms: tuple[str, ...]) -> tuple[str, ...]:
    """Return the terms sorted; of terms that differ in case alone, the first one of the list."""
    first: dict[str, str] = {}
    for term in terms:
        first.setdefault(term.casefold(), term)
    return tuple(first[folded] for folded in sorted(first))


Keyterm = Annotated[
    str,
    AfterValidator(_keyterm),
    WithJsonSchema(
        {"type": "string", "minLength": 1, "maxLength": MAX_KEYTERM_CHARACTERS, "pattern": r"^\S+( \S+){0,5}$"}
    ),
]
Keyterms = Annotated[
    tuple[Keyterm, ...],
    Field(strict=False, json_schema_extra={"maxItems": MAX_KEYTERMS}),  # a tuple is written as a list
    BeforeValidator(_few_enough),
    AfterValidator(_each_once),
]
