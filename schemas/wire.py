"""Base models of all messages, and the format of numbers and times.

Numbers are rounded only here: dollars to 6 decimals, seconds and ratios to 3, percentages to 2. Rates are not rounded
(a vCPU second costs $0.000011244). Rounding happens when a model is created, so a message that is serialised and parsed
equals the original.
"""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Annotated

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    model_validator,
)

from schemas.codes import ErrorCode, ErrorType, Method

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
