"""What Deepgram's refusals and the network's failures mean for us."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import httpx
from deepgram.core.api_error import ApiError

from worker.adapters.deepgram.retries import TryFailed, parse_retry_after
from worker.errors import (
    DeepgramAuthError,
    DeepgramQuotaError,
    DeepgramRejected,
    DeepgramUnavailable,
    PaidServiceError,
    TranscriptionTimeout,
)

ENGINE = "deepgram"
MOST_REASON_CHARACTERS = 300

REPEATED = frozenset({408, 429})
"""Besides everything from 500 up."""


def refused(refusal: ApiError, *, secret: str, now: datetime, waited_seconds: float) -> TryFailed:
    """An HTTP status other than success; or a success whose body is not JSON, which is billed.

    Should the service repeat our key, the `secret` is hidden. So the refusal itself must not be quoted anywhere.
    """
    status, headers = refusal.status_code or 0, refusal.headers or {}
    reason = _reason(refusal.body, headers, secret)
    was_answered = 200 <= status < 300  # noqa: PLR2004 - HTTP's numbers
    return TryFailed(
        DeepgramUnavailable(f"its answer is not JSON: {reason}")
        if was_answered
        else _error(status, reason, waited_seconds),
        is_worth_repeating=not 400 <= status < 500 or status in REPEATED,  # noqa: PLR2004
        was_wasted=was_answered,
        retry_after_seconds=parse_retry_after(headers.get("retry-after"), now),
    )


def _error(status: int, reason: str, waited_seconds: float) -> PaidServiceError:
    match status:
        case 401 | 403:
            return DeepgramAuthError(status, reason)
        case 402 | 429:
            return DeepgramQuotaError(status, reason)
        case 504:
            return TranscriptionTimeout(ENGINE, waited_seconds)
        case _ if 400 <= status < 500 and status not in REPEATED:  # noqa: PLR2004
            return DeepgramRejected(status, reason)
        case _:
            return DeepgramUnavailable(f"status {status}: {reason}")


def disconnected(failure: httpx.RequestError, *, body_was_sent: bool) -> TryFailed:
    """The connection could not be made, or broke; once the whole body is out, the service may do and bill its work."""
    return TryFailed(
        DeepgramUnavailable(f"the connection failed: {type(failure).__name__}: {failure}"[:MOST_REASON_CHARACTERS]),
        is_worth_repeating=True,
        was_wasted=body_was_sent,
    )


def timed_out(seconds: float, *, body_was_sent: bool) -> TryFailed:
    """All the time there was is over. Not repeated: what was too slow just now would cost as much time again."""
    return TryFailed(TranscriptionTimeout(ENGINE, seconds), was_wasted=body_was_sent)


def unusable(reason: str) -> TryFailed:
    """A success, and billed as one, that holds no transcript."""
    return TryFailed(
        DeepgramUnavailable(f"its answer is no transcript: {reason}"), is_worth_repeating=True, was_wasted=True
    )


def _reason(body: Any, headers: Mapping[str, str], secret: str) -> str:
    """What the service says, of any of its three shapes: two JSON objects and plain text."""
    fields: Mapping[str, Any] = body if isinstance(body, Mapping) else {}
    said = [fields.get(name) for name in ("err_code", "category", "err_msg", "message", "details")]
    text = ": ".join(str(part) for part in said if part) or str(body or "no reason given")
    request_id = fields.get("request_id") or headers.get("dg-request-id")
    shown = " ".join(text.replace(secret, "[key]").split())[:MOST_REASON_CHARACTERS]
    return f"{shown} (request {request_id})" if request_id else shown
