"""Backlog of a subscription from Cloud Monitoring, some minutes old. No decision of the worker depends on it.

For the operator: the worker's account needs roles/monitoring.viewer in the project. Without it the number is left out,
with one warning in the log.
"""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, Self

import google.auth
import structlog
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import AuthorizedSession

from worker.ports import Clock

MONITORING = "https://monitoring.googleapis.com"
SCOPE = "https://www.googleapis.com/auth/monitoring.read"
MESSAGES = "pubsub.googleapis.com/subscription/num_undelivered_messages"
OLDEST_SECONDS = "pubsub.googleapis.com/subscription/oldest_unacked_message_age"
ASK_SECONDS = 60.0
ANSWER_SECONDS = 10.0
# A point a minute, the newest of them up to four minutes old.
REACH = timedelta(minutes=10)

log = structlog.get_logger(__name__)


class Session(Protocol):
    """An HTTP session with the worker's credentials."""

    def get(self, url: str, *, params: dict[str, str], timeout: float) -> Any:
        """Return a response of `requests`; raises `OSError` without one, `GoogleAuthError`."""
        ...


class BacklogMetric:
    """The last known backlog, refreshed every minute inside a `with` block.

    Its thread is never joined: a request that hangs must not delay the worker's shutdown.
    """

    def __init__(self, project: str, subscription: str, clock: Clock, open_session: Callable[[], Session]) -> None:
        self._url = f"{MONITORING}/v3/projects/{project}/timeSeries"
        self._subscription = subscription
        self._clock, self._open_session = clock, open_session
        self._over, self._complaint = threading.Event(), ""
        self.messages: int | None = None
        """Number of unacknowledged messages; None if unknown."""
        self.oldest_seconds: int | None = None
        """Age of the oldest unacknowledged message in seconds; None if unknown."""

    def __enter__(self) -> Self:
        threading.Thread(target=self._keep_asking, name="backlog", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def ask(self) -> None:
        """Refresh once; values that cannot be read are None, and the reason is logged once."""
        try:
            self.messages = self._asked(MESSAGES, self._clock.now())
            self.oldest_seconds = self._asked(OLDEST_SECONDS, self._clock.now())
        except (OSError, GoogleAuthError, LookupError, ValueError, TypeError, AttributeError) as exc:
            self.messages = self.oldest_seconds = None
            self._complain(f"{type(exc).__name__}: {exc}")

    def _keep_asking(self) -> None:
        self.ask()
        while not self._over.wait(ASK_SECONDS):
            self.ask()

    def _asked(self, metric: str, now: datetime) -> int | None:
        which = f'metric.type="{metric}" AND resource.labels.subscription_id="{self._subscription}"'
        span = {
            "interval.startTime": (now - REACH).astimezone(UTC).isoformat(),
            "interval.endTime": now.astimezone(UTC).isoformat(),
        }
        answer = self._open_session().get(self._url, params={"filter": which, **span}, timeout=ANSWER_SECONDS)
        if not answer.ok:
            raise LookupError(f"HTTP status {answer.status_code}: {answer.text[:200]}")
        return newest(answer.json())

    def _complain(self, reason: str) -> None:
        if reason != self._complaint:
            log.warning("backlog.unknown", reason=reason, hint="grant the worker's account roles/monitoring.viewer")
        self._complaint = reason


def newest(time_series: dict[str, Any]) -> int | None:
    """Return the newest point of an answer, which comes first; None if there is none."""
    points = [series["points"][0] for series in time_series.get("timeSeries", ()) if series["points"]]
    return int(points[0]["value"]["int64Value"]) if points else None


def google_session() -> Session:
    """Open a session with the environment's credentials. Raises `GoogleAuthError`."""
    credentials, _ = google.auth.default(scopes=[SCOPE])
    session: Session = AuthorizedSession(credentials)  # type: ignore[no-untyped-call]
    return session
