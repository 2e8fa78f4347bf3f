"""Failures of Deepgram and of the network to it, translated: whose they are, whether repeated, whether billed.

| failure                                        | error                 | repeated | may be billed         |
| ---------------------------------------------- | --------------------- | -------- | --------------------- |
| 400, 413, 414, 415, 422: this request          | `DeepgramRejected`    | no       | no                    |
| 401, 403                                       | `DeepgramAuthError`   | no       | no                    |
| 402                                            | `DeepgramQuotaError`  | no       | no                    |
| 429                                            | `DeepgramQuotaError`  | yes      | no                    |
| 408, 5xx, redirects                            | `DeepgramDown`        | yes      | no                    |
| any other 4xx                                  | `DeepgramDown`        | no       | no                    |
| not connected, broken before the body was out  | `DeepgramDown`        | yes      | no                    |
| broken when the body was out                   | `DeepgramUnavailable` | once     | yes                   |
| no answer in time                              | `TranscriptionTimeout`| no       | when the body was out |
| a success whose body is no transcript          | `DeepgramUnusable`    | once     | yes                   |

`DeepgramDown` and its subclasses are what one request saw. The circuit breaker knows the others, and has the last word.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from worker.adapters.deepgram.retries import TryFailed, parse_retry_after
from worker.errors import (
    DeepgramAuthError,
    DeepgramDown,
    DeepgramQuotaError,
    DeepgramRejected,
    DeepgramUnavailable,
    DeepgramUnusable,
    PaidServiceError,
    TranscriptionTimeout,
)

ENGINE = "deepgram"
MOST_REASON_CHARACTERS = 300

OF_THE_REQUEST = frozenset({400, 413, 414, 415, 422})
"""The audio or its options do not suit; any other refusal would meet every request alike."""
REPEATED = frozenset({408, 429})
"""Besides everything that is not 4xx."""


def refused(status: int, headers: Mapping[str, str], body: bytes, *, secret: str, now: datetime) -> TryFailed:
    """Translate an HTTP status other than success. Should the service repeat our key, the `secret` is hidden."""
    return TryFailed(
        _error(status, _reason(_parsed(body), headers, secret)),
        is_worth_repeating=not 400 <= status < 500 or status in REPEATED,  # noqa: PLR2004 - HTTP's numbers
        retry_after_seconds=parse_retry_after(headers.get("retry-after"), now),
    )


def _error(status: int, reason: str) -> PaidServiceError:
    match status:
        case 401 | 403:
            return DeepgramAuthError(status, reason)
        case 402 | 429:
            return DeepgramQuotaError(status, reason)
        case _ if status in OF_THE_REQUEST:
            return DeepgramRejected(status, reason)
        case _:
            return DeepgramDown(f"status {status}: {reason}")


def disconnected(failure: Exception, *, body_was_sent: bool) -> TryFailed:
    """Error of a connection that could not be made, or broke; a completely sent request may be processed and billed."""
    reason = f"the connection failed: {type(failure).__name__}: {failure}"[:MOST_REASON_CHARACTERS]
    return TryFailed(
        DeepgramUnavailable(reason) if body_was_sent else DeepgramDown(reason),
        is_worth_repeating=True,
        was_wasted=body_was_sent,
    )


def timed_out(seconds: float, *, body_was_sent: bool) -> TryFailed:
    """All the time there was is over. Not repeated: what was too slow just now would cost as much time again."""
    return TryFailed(TranscriptionTimeout(ENGINE, seconds), was_wasted=body_was_sent)


def unusable(reason: str) -> TryFailed:
    """Error of a billed success that contains no transcript."""
    return TryFailed(DeepgramUnusable(reason), is_worth_repeating=True, was_wasted=True)


def _parsed(body: bytes) -> Any:
    text = body.decode("utf-8", "replace")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _reason(body: Any, headers: Mapping[str, str], secret: str) -> str:
    """Return the service's reason, from any of its three shapes: two JSON objects and plain text."""
    fields: Mapping[str, Any] = body if isinstance(body, Mapping) else {}
    said = [fields.get(name) for name in ("err_code", "category", "err_msg", "message", "details")]
    text = ": ".join(str(part) for part in said if part) or str(body or "no reason given")
    request_id = str(fields.get("request_id") or headers.get("dg-request-id") or "")
    shown = _shown(text.replace(secret, "[key]"))[:MOST_REASON_CHARACTERS]
    return f"{shown} (request {_shown(request_id)[:MOST_REASON_CHARACTERS]})" if request_id else shown


def _shown(text: str) -> str:
    """On one line, without anything that a terminal, a log or UTF-8 would stumble over."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
