"""Failures of Deepgram and of the network to it: whose they are, whether billed, whether repeated, and the retries.

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

import email.utils
import json
import math
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import structlog

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
from worker.ports import Clock
from worker.telemetry.register import DEEPGRAM_RETRIES

ENGINE = "deepgram"
MOST_REASON_CHARACTERS = 300

OF_THE_REQUEST = frozenset({400, 413, 414, 415, 422})
"""The audio or its options do not suit; any other refusal would meet every request alike."""
REPEATED = frozenset({408, 429})
"""Besides everything that is not 4xx."""

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class TryFailed(Exception):
    """One try brought no transcript. `error` is what the caller gets when it is not repeated."""

    def __init__(
        self,
        error: PaidServiceError,
        *,
        is_worth_repeating: bool = False,
        was_wasted: bool = False,
        retry_after_seconds: float | None = None,
    ) -> None:
        self.error, self.is_worth_repeating = error, is_worth_repeating
        self.was_wasted, self.retry_after_seconds = was_wasted, retry_after_seconds
        super().__init__(str(error))


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


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Number of requests for one chunk, and the waits in between."""

    tries: int = 6
    wasted_repeats: int = 1
    """Maximum number of retries after a request that may be billed already. Further attempts are left to the job's next
    delivery, when the trouble may be over."""
    first_wait_seconds: float = 1.0
    longest_wait_seconds: float = 60.0
    """Maximum wait in seconds, of our own backoff and of the service's requests; a longer request ends the retries."""


class Tries:
    """The tries for one chunk. Waits are random below a doubling bound, or a little over what the service asks for.

    `may_repeat` is asked after each failed try.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        clock: Clock,
        rng: random.Random,
        job_id: str,
        may_repeat: Callable[[], bool] = lambda: True,
    ) -> None:
        self._policy, self._clock, self._rng, self._job_id = policy, clock, rng, job_id
        self._may_repeat = may_repeat
        self.wasted = 0

    async def run(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return what `call` returns in the end. Raises the `error` of its last `TryFailed`, with `wasted_requests`."""
        attempt = 1
        while True:
            try:
                return await call()
            except TryFailed as failed:
                self.wasted += failed.was_wasted
                if attempt >= self._policy.tries or not self._is_repeated(failed):
                    failed.error.wasted_requests = self.wasted
                    raise failed.error from failed.__cause__
                wait_seconds = self._wait_seconds(failed, attempt)
                DEEPGRAM_RETRIES.add()
                _log.warning(
                    "deepgram.retry",
                    job_id=self._job_id,
                    attempt=attempt,
                    reason=str(failed),
                    wait_seconds=round(wait_seconds, 3),
                    wasted_requests=self.wasted,
                )
            await self._clock.sleep(wait_seconds)
            attempt += 1

    def _is_repeated(self, failed: TryFailed) -> bool:
        return (
            failed.is_worth_repeating
            and self._may_repeat()
            and not (failed.was_wasted and self.wasted > self._policy.wasted_repeats)
            and (failed.retry_after_seconds or 0) <= self._policy.longest_wait_seconds
        )

    def _wait_seconds(self, failed: TryFailed, attempt: int) -> float:
        if failed.retry_after_seconds is not None:
            return failed.retry_after_seconds + self._rng.uniform(0, self._policy.first_wait_seconds)
        bound = self._policy.first_wait_seconds * 2 ** (attempt - 1)
        return self._rng.uniform(0, min(bound, self._policy.longest_wait_seconds))


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds from `now`, of a Retry-After header in either form; None where there is none to be understood."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = _until(value, now)
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _until(http_date: str, now: datetime) -> float:
    try:
        moment = email.utils.parsedate_to_datetime(http_date)
    except (ValueError, OverflowError):
        return math.nan
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - now).total_seconds()
