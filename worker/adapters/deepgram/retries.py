"""Retries of failed requests."""

import email.utils
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

import structlog
import tenacity

from worker.errors import PaidServiceError
from worker.ports import Clock
from worker.telemetry.register import DEEPGRAM_RETRIES

T = TypeVar("T")

_log = structlog.get_logger(__name__)


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
        tries = tenacity.AsyncRetrying(
            sleep=self._clock.sleep,
            stop=tenacity.stop_after_attempt(self._policy.tries),
            wait=self._wait_seconds,
            retry=tenacity.retry_if_exception(self._is_repeated),
            before_sleep=self._report,
            reraise=True,
        )
        try:
            return await tries(self._counted, call)
        except TryFailed as failed:
            error, cause = failed.error, failed.__cause__
        error.wasted_requests = self.wasted
        raise error from cause

    async def _counted(self, call: Callable[[], Awaitable[T]]) -> T:
        try:
            return await call()
        except TryFailed as failed:
            self.wasted += failed.was_wasted
            raise

    def _is_repeated(self, failed: BaseException) -> bool:
        return (
            isinstance(failed, TryFailed)
            and failed.is_worth_repeating
            and self._may_repeat()
            and not (failed.was_wasted and self.wasted > self._policy.wasted_repeats)
            and (failed.retry_after_seconds or 0) <= self._policy.longest_wait_seconds
        )

    def _wait_seconds(self, state: tenacity.RetryCallState) -> float:
        failed = state.outcome.exception() if state.outcome else None
        if isinstance(failed, TryFailed) and failed.retry_after_seconds is not None:
            return failed.retry_after_seconds + self._rng.uniform(0, self._policy.first_wait_seconds)
        bound = self._policy.first_wait_seconds * 2 ** (state.attempt_number - 1)
        return self._rng.uniform(0, min(bound, self._policy.longest_wait_seconds))

    def _report(self, state: tenacity.RetryCallState) -> None:
        failed = state.outcome.exception() if state.outcome else None
        DEEPGRAM_RETRIES.add()
        _log.warning(
            "deepgram.retry",
            job_id=self._job_id,
            attempt=state.attempt_number,
            reason=str(failed),
            wait_seconds=round(state.upcoming_sleep, 3),
            wasted_requests=self.wasted,
        )


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
