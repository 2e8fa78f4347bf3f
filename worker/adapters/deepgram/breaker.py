"""A circuit breaker: a service that is down is left alone for a while."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from worker.errors import DeepgramUnavailable, PaidServiceError, TranscriptionTimeout

_log = structlog.get_logger(__name__)


class CircuitBreaker:
    """Counts the service's failures in a row; at `failures` it opens, and refuses every request for a pause.

    After the pause one request goes through as a probe. Its success closes the breaker; its failure doubles the pause,
    up to the longest. A refusal (quota, key, bad request) shows a service that is up, and counts as a success here.
    """

    def __init__(
        self,
        monotonic: Callable[[], float],
        *,
        failures: int = 5,
        first_pause_seconds: float = 10.0,
        longest_pause_seconds: float = 300.0,
    ) -> None:
        self._monotonic, self._limit = monotonic, failures
        self._first_pause, self._longest_pause = first_pause_seconds, longest_pause_seconds
        self._failures_in_a_row = 0
        self._pause = 0.0
        """0 while the breaker is closed."""
        self._probe_at = 0.0
        self._probing = False

    @contextmanager
    def guard(self) -> Iterator[None]:
        """One request. Raises `DeepgramUnavailable` at once while the breaker is open.

        A request that is cancelled says nothing about the service; a probe then leaves its turn to the next request.
        """
        is_probe = self._admit()
        try:
            yield
        except (DeepgramUnavailable, TranscriptionTimeout):
            self._failed(is_probe=is_probe)
            raise
        except PaidServiceError:
            self._lived()
            raise
        else:
            self._lived()
        finally:
            self._probing = self._probing and not is_probe

    def _admit(self) -> bool:
        if not self._pause:
            return False
        wait = self._probe_at - self._monotonic()
        if wait > 0 or self._probing:
            raise DeepgramUnavailable(
                f"its last {self._failures_in_a_row} requests failed; the next one may go in {max(wait, 0):.0f} s"
            )
        self._probing = True
        return True

    def _failed(self, *, is_probe: bool) -> None:
        self._failures_in_a_row += 1
        if is_probe:
            self._open(min(2 * self._pause, self._longest_pause))
        elif not self._pause and self._failures_in_a_row >= self._limit:
            self._open(self._first_pause)

    def _open(self, pause: float) -> None:
        self._pause, self._probe_at = pause, self._monotonic() + pause
        _log.warning("deepgram.circuit_opened", failures_in_a_row=self._failures_in_a_row, pause_seconds=pause)

    def _lived(self) -> None:
        if self._pause:
            _log.info("deepgram.circuit_closed")
        self._failures_in_a_row, self._pause = 0, 0.0
