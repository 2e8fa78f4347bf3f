"""The only broad `except` around jobs; it turns an exception into a return value."""

from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def caught(work: Awaitable[T]) -> T | Exception:
    """Return the work's result, or the exception that it raised. Cancellation is not caught."""
    try:
        return await work
    except Exception as exc:  # noqa: BLE001
        return exc
