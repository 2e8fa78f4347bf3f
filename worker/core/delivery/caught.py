"""The one broad `except` of the worker: from here on an error is data."""

from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def caught(work: Awaitable[T]) -> T | Exception:
    """Return what the work returned or raised. Cancellation passes."""
    try:
        return await work
    except Exception as exc:  # noqa: BLE001
        return exc
