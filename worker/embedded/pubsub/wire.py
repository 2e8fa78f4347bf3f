"""Where proto-plus gives out Python's own times though its annotations say protobuf's, the types are put right."""

from datetime import datetime, timedelta
from typing import cast

from google.protobuf import duration_pb2, timestamp_pb2


def span(value: duration_pb2.Duration) -> timedelta:
    """A field that holds a duration."""
    return cast("timedelta", value)


def moment(value: timestamp_pb2.Timestamp) -> datetime:
    """A field that holds a time, timezone-aware."""
    return cast("datetime", value)


def as_duration(seconds: int) -> duration_pb2.Duration:
    """A duration to put into a field."""
    return duration_pb2.Duration(seconds=seconds)


def as_timestamp(value: datetime) -> timestamp_pb2.Timestamp:
    """A time to put into a field."""
    timestamp = timestamp_pb2.Timestamp()
    timestamp.FromDatetime(value)
    return timestamp
