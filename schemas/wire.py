"""What every message has in common: the base model, and how numbers and times are written.

Numbers are rounded here and nowhere else: dollars to 6 decimals, seconds and ratios to 3, percentages to 2. Rates are
carried as they are (a vCPU second costs $0.000011244). Rounding happens when a model is made, so a message that is
written and read again equals the one that was made.
"""

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer, model_validator

from schemas.codes import ErrorCode, ErrorType, Method


class WireModel(BaseModel):
    """Base of everything that travels: immutable, and deaf to fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, use_attribute_docstrings=True)


class TolerantModel(WireModel):
    """Base of what others write for us: `null` means that the field was left out."""

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, values: object) -> object:
        if not isinstance(values, Mapping):
            return values
        return {name: value for name, value in values.items() if value is not None}


def _to_milliseconds(value: datetime) -> datetime:
    try:
        utc = value.astimezone(timezone.utc)
    except OverflowError as exc:  # the first or last day there is, in another time zone
        raise ValueError("is out of range") from exc
    return utc.replace(microsecond=utc.microsecond // 1000 * 1000)


def _write_time(value: datetime) -> str:
    return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _to_usd(value: float) -> float:
    return round(value, 6)


def _to_thousandths(value: float) -> float:
    return round(value, 3)


def _to_percent(value: float) -> float:
    return round(value, 2)


UtcTime = Annotated[
    AwareDatetime, AfterValidator(_to_milliseconds), PlainSerializer(_write_time, return_type=str, when_used="json")
]
"""A moment in UTC, cut to milliseconds, written as `2026-11-22T10:00:00.000Z`."""

Usd = Annotated[float, AfterValidator(_to_usd)]
"""US dollars, rounded to 6 decimals."""

Seconds = Annotated[float, Field(ge=0), AfterValidator(_to_thousandths)]
"""A duration, rounded to milliseconds."""

Ratio = Annotated[float, Field(ge=0), AfterValidator(_to_thousandths)]
"""A quotient of like things, rounded to 3 decimals."""

Percent = Annotated[float, AfterValidator(_to_percent)]
"""Per hundred, rounded to 2 decimals; negative where it got worse."""

ErrorCodeOrNewer = Annotated[ErrorCode | str, Field(union_mode="left_to_right")]
ErrorTypeOrNewer = Annotated[ErrorType | str, Field(union_mode="left_to_right")]
MethodOrNewer = Annotated[Method | str, Field(union_mode="left_to_right")]

Count = Annotated[int, Field(ge=0)]
"""How many."""
