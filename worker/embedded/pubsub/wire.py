"""Corrected types where proto-plus returns Python's own times though its annotations say protobuf's."""

from datetime import datetime, timedelta
from typing import cast

from google.protobuf import duration_pb2, timestamp_pb2


def span(value: duration_pb2.Duration) -> timedelta:
    """Return a duration field."""
    return cast("timedelta", value)


def moment(value: timestamp_pb2.Timestamp) -> datetime:
    """Return a time field, timezone-aware."""
    return cast("datetime", value)


def as_duration(seconds: int) -> duration_pb2.Duration:
    """Convert a duration for a field."""
    return duration_pb2.Duration(seconds=seconds)


def as_timestamp(value: datetime) -> timestamp_pb2.Timestamp:
    """Convert a time for a field."""
    timestamp = timestamp_pb2.Timestamp()
    timestamp.FromDatetime(value)
    return timestamp
