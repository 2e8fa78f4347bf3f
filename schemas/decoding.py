"""Parsing of JSON objects from outside, and translation of pydantic's errors into sentences for publishers.

Time is linear in the size of the input, whatever its content. The number and length of the sentences are bounded, since
they become part of events, dead letters and log lines.
"""

import json
import math
import reprlib
from itertools import islice
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails, from_json

MAX_VIOLATIONS = 50
MAX_VIOLATION_CHARACTERS = 300
MAX_VALUE_CHARACTERS = 90
"""Maximum number of characters quoted from a publisher's value or name."""

_MOST_ERRORS_READ = 2_000
"""Above this number of errors only the number is reported: pydantic would need seconds to describe them."""

_SENTENCES = {
    "missing": "is required",
    "string_type": "must be a string",
    "string_unicode": "must be a string of valid Unicode",
    "int_type": "must be a whole number",
    "int_parsing_size": "must be a whole number of 64 bits",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "tuple_type": "must be a list",
    "enum": "must be {expected}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "value_error": "{error}",
}
_ABSENT = object()


def load_object(data: bytes) -> dict[str, Any]:
    """Parse one JSON object by RFC 8259: UTF-8, finite numbers, each key once.

    Raises `ValueError` with the reason, for any other bytes.
    """
    try:
        from_json(data, allow_inf_nan=False)  # bounds nesting, refuses lone surrogates: json does not
    except ValueError as exc:
        raise ValueError(f"is not valid JSON: {exc}") from exc
    document = json.loads(data, parse_float=_finite, object_pairs_hook=_unique)
    if not isinstance(document, dict):
        raise ValueError(f"must be a JSON object (got {shorten(document)})")  # noqa: TRY004 - one class for callers
    return document


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"the number {reprlib.repr(text)} is too large")
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) == len(pairs):
        return members
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise ValueError(f"the key {shorten(name)} stands twice in one object")
        seen.add(name)
    raise AssertionError("a dict is shorter than its pairs only where a key occurs twice")


def violations(error: ValidationError) -> tuple[str, ...]:
    """Return one `field: what is wrong and what would be right (got value)` for each error, in the order of the fields.

    Returns at most `MAX_VIOLATIONS` sentences and a last one that counts the rest, each of at most
    `MAX_VIOLATION_CHARACTERS`.
    """
    count = error.error_count()
    if count > _MOST_ERRORS_READ:
        return (f"message: {count} values are wrong",)
    found = error.errors(include_url=False)
    sentences = [_sentence(details) for details in found[:MAX_VIOLATIONS]]
    if count > MAX_VIOLATIONS:
        sentences.append(f"message: {count - MAX_VIOLATIONS} more")
    return tuple(sentences)


def _sentence(details: ErrorDetails) -> str:
    field = ".".join(_cut(str(part), MAX_VALUE_CHARACTERS) for part in details["loc"]) or "message"
    template = _SENTENCES.get(details["type"])
    what = template.format(**details.get("ctx", {})) if template else details["msg"]
    got = "" if details["type"] == "missing" else f" (got {shorten(details.get('input', _ABSENT))})"
    return _cut(f"{field}: {what}{got}", MAX_VIOLATION_CHARACTERS)


class _Brief(reprlib.Repr):
    """`reprlib.Repr` with a lower depth that does not sort a dict's keys, since sorting reads all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = 60
        self.maxlevel = 2

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        """Format the first members of a dict in insertion order."""
        if level <= 0 and x:
            return "{...}"
        first = islice(x.items(), self.maxdict)
        members = [f"{self.repr1(name, level - 1)}: {self.repr1(member, level - 1)}" for name, member in first]
        return "{" + ", ".join([*members, *(["..."] if len(x) > self.maxdict else [])]) + "}"


def shorten(value: object) -> str:
    """Return the value as JSON or as a Python literal, cut to `MAX_VALUE_CHARACTERS`; large values are read in part."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return _cut(_Brief().repr(value), MAX_VALUE_CHARACTERS)


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[: characters - 3] + "..."
