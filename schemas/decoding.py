"""Bytes from outside -> a JSON object, and pydantic's errors -> sentences a publisher can act on."""

import json
import math
import reprlib
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails, from_json

MAX_VIOLATIONS = 50

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
    """Read one JSON object as RFC 8259 has it: UTF-8, finite numbers, each key once.

    Raises `ValueError` saying what is wrong, whatever the bytes are.
    """
    try:
        from_json(data, allow_inf_nan=False)  # bounds nesting, refuses lone surrogates: json does not
    except ValueError as exc:
        raise ValueError(f"is not valid JSON: {exc}") from exc
    document = json.loads(data, parse_float=_finite, object_pairs_hook=_unique)
    if not isinstance(document, dict):
        raise ValueError(f"must be a JSON object (got {_shorten(document)})")  # noqa: TRY004 - one class for callers
    return document


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"the number {reprlib.repr(text)} is too large")
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {_shorten(twice)} stands twice in one object")
    return members


def violations(error: ValidationError) -> tuple[str, ...]:
    """One `field: what is wrong and what would be right (got value)` for each error, in the order of the fields."""
    found = error.errors(include_url=False)
    sentences = [_sentence(details) for details in found[:MAX_VIOLATIONS]]
    if len(found) > MAX_VIOLATIONS:
        sentences.append(f"message: {len(found) - MAX_VIOLATIONS} more")
    return tuple(sentences)


def _sentence(details: ErrorDetails) -> str:
    field = ".".join(str(part) for part in details["loc"]) or "message"
    template = _SENTENCES.get(details["type"])
    what = template.format(**details.get("ctx", {})) if template else details["msg"]
    got = "" if details["type"] == "missing" else f" (got {_shorten(details.get('input', _ABSENT))})"
    return f"{field}: {what}{got}"


def _shorten(value: object) -> str:
    """The value as JSON, at most about 60 characters of it."""
    brief = reprlib.Repr()
    brief.maxstring = brief.maxother = brief.maxlong = 60
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return brief.repr(value)
