"""Base models of all messages, their numbers and times, and the parsing of JSON objects from outside.

Numbers are rounded only here, when a model is created, so that a message which is serialised and parsed equals the
original. Rates are not rounded: a vCPU second costs $0.000011244.

Parsing takes time linear in the size of the input. Pydantic's errors become sentences for publishers; these are part of
events, dead letters and log lines, so their number and length are bounded.
"""

import json
import math
import re
import reprlib
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from itertools import islice
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, from_json

from schemas.codes import ErrorCode, ErrorType, Method

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

_RFC_3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,6})\d{0,24})?(?:[Zz]|([+-])(\d\d):([0-5]\d))", re.ASCII
)
_LEAP_SECOND = 60


class WireModel(BaseModel):
    """Base of all messages: immutable; ignores unknown fields."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, use_attribute_docstrings=True)


class TolerantModel(WireModel):
    """Base of messages from publishers: `null` means that the field was left out."""

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, values: object) -> object:
        if not isinstance(values, Mapping):
            return values
        return {name: value for name, value in values.items() if value is not None}


def read_time(value: object) -> datetime:
    """Parse an RFC 3339 time; a `datetime` with a time zone is returned as it is. Raises `ValueError`."""
    if isinstance(value, datetime):
        return value
    match = _RFC_3339.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("must be an RFC 3339 time with its offset, such as '2026-11-22T10:00:00Z'")
    year, month, day, hour, minute, second = map(int, match.groups()[:6])
    fraction, sign, *offset = match.groups(default="0")[6:]
    hours, minutes = map(int, offset)
    leap = second == _LEAP_SECOND  # datetime knows none: it is the first moment of the next minute
    try:
        zone = timezone((-1 if sign == "-" else 1) * timedelta(hours=hours, minutes=minutes))
        local = datetime(year, month, day, hour, minute, second - leap, int(fraction.ljust(6, "0")), zone)
        return (local + timedelta(seconds=leap)).astimezone(timezone.utc)
    except (ValueError, OverflowError) as exc:
        raise ValueError("must be a moment that exists, from year 1 to year 9999") from exc


def _to_milliseconds(value: datetime) -> datetime:
    try:
        utc = value.astimezone(timezone.utc)
    except OverflowError as exc:  # the first or last day there is, in another time zone
        raise ValueError("is out of range") from exc
    return utc.replace(microsecond=utc.microsecond // 1000 * 1000)


def _write_time(value: datetime) -> str:
    return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _rounded_to(decimals: int) -> AfterValidator:
    return AfterValidator(lambda value: round(value, decimals) + 0.0)  # plus 0, or a small loss would be written -0.0


UtcTime = Annotated[
    AwareDatetime, AfterValidator(_to_milliseconds), PlainSerializer(_write_time, return_type=str, when_used="json")
]
"""A time in UTC, truncated to milliseconds, written as `2026-11-22T10:00:00.000Z`."""

Deadline = Annotated[UtcTime, BeforeValidator(read_time)]
"""A time from a publisher, in any form of RFC 3339."""

Usd = Annotated[float, _rounded_to(6)]
"""US dollars, rounded to 6 decimals."""

Seconds = Annotated[float, Field(ge=0), _rounded_to(3)]
"""A duration, rounded to milliseconds."""

Ratio = Annotated[float, Field(ge=0), _rounded_to(3)]
"""A ratio, rounded to 3 decimals."""

Percent = Annotated[float, _rounded_to(2)]
"""A percentage, rounded to 2 decimals; negative for a loss."""

ErrorCodeOrNewer = Annotated[ErrorCode | str, Field(union_mode="left_to_right")]
ErrorTypeOrNewer = Annotated[ErrorType | str, Field(union_mode="left_to_right")]
MethodOrNewer = Annotated[Method | str, Field(union_mode="left_to_right")]

Count = Annotated[int, Field(ge=0)]
"""A count, at least 0."""


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

    At most `MAX_VIOLATIONS`, and a last one that counts the rest; each of at most `MAX_VIOLATION_CHARACTERS`.
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
