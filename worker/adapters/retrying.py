"""Retries of calls to Google's services: the one place that sets up tenacity for them, logs and counts."""

from collections.abc import Callable

import structlog
import tenacity
from tenacity.stop import stop_base

from worker.telemetry.register import RETRIES

_log = structlog.get_logger(__name__)


def retrying(
    service: str,
    operation: str,
    resource: str,
    *,
    is_transient: Callable[[BaseException], bool],
    stop: stop_base,
    first_wait_seconds: float,
    longest_wait_seconds: float,
) -> tenacity.AsyncRetrying:
    """Retry transient errors with random waits below a doubling bound; raises the last error.

    `service` is a label of `RETRIES`; each retry counts there and is logged as `<service>.retry`.
    """

    def report(state: tenacity.RetryCallState) -> None:
        failed = state.outcome.exception() if state.outcome else None
        RETRIES.add(service=service)
        _log.warning(
            f"{service}.retry",
            operation=operation,
            resource=resource,
            attempt=state.attempt_number,
            reason=f"{type(failed).__name__}: {failed}"[:500],
            wait_seconds=round(state.upcoming_sleep, 3),
        )

    return tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception(is_transient),
        stop=stop,
        wait=tenacity.wait_random_exponential(multiplier=first_wait_seconds, max=longest_wait_seconds),
        before_sleep=report,
        reraise=True,
    )
