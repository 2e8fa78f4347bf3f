"""A circuit breaker: a service that is down is left alone for a while, and requests learn whose failure theirs was."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from worker.errors import (
    DeepgramAuthError,
    DeepgramDown,
    DeepgramQuotaError,
    DeepgramRejected,
    DeepgramUnavailable,
    DeepgramUnusable,
    PaidServiceError,
    Retryable,
)
from worker.ports import Clock
from worker.telemetry.register import DEEPGRAM_DOWN

POLL_SECONDS = 1.0
OTHERS_FIRST_SECONDS = 3.0
"""After a pause: for a worker that takes messages in again to pull one. A request that did not fail yet goes first."""
MOST_JOBS_REMEMBERED = 1_000
OUT_OF_CREDIT, TOO_MANY_REQUESTS = 402, 429

_log = structlog.get_logger(__name__)


class _Probe:
    """The one request that is sent while the breaker is open."""

    def __init__(self, job_id: str) -> None:
        self.job_id, self.over = job_id, asyncio.Event()


class CircuitBreaker:
    """Counts the service's failures in a row; at `failures` it opens, and refuses every request for a pause.

    After the pause one request goes through as a probe. Its success closes the breaker; its failure doubles the pause,
    up to the longest. A refusal of the account (key, credit) opens it at once. An answer without a transcript is a sign
    of life too, unless as many jobs as `failures` got such answers and none a transcript.

    A failed request leaves `guard` with an error whose class says whose failure it was:

    - `DeepgramDown`: the service's. Nothing was billed, or this was one of the first `paid_probes` probes.
    - `Retryable`: this request's, for the service served another one since it began, or since the same job failed the
      last time; or one that may be billed, which must not be repeated without bound.
    - `DeepgramRejected`: as it came.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        failures: int = 3,
        first_pause_seconds: float = 10.0,
        longest_pause_seconds: float = 60.0,
        paid_probes: int = 3,
    ) -> None:
        self._clock, self._limit, self._most_paid_probes = clock, failures, paid_probes
        self._first_pause, self._longest_pause = first_pause_seconds, longest_pause_seconds
        self._failures_in_a_row = self._paid_probes = 0
        self._served = 0
        """Number of answered requests; a request that began before the last one knows that the service is up."""
        self._served_at_failure: dict[str, int] = {}
        """`_served` at the last failure of a job that has not been served since."""
        self._odd_jobs: set[str] = set()
        """Jobs that got no transcript in an answer since the last one that did."""
        self._pause = 0.0
        """0 while the breaker is closed."""
        self._probe_at = 0.0
        self._probe: _Probe | None = None
        self._last_probed = ""
        """The job that failed as the last probe: another one's request is the better next."""
        self._last_failure = ""
        self._queue: list[object] = []
        self._last_turn = clock.monotonic() - first_pause_seconds
        DEEPGRAM_DOWN.set(0.0)

    @property
    def is_open(self) -> bool:
        """True while all requests but a probe are refused."""
        return self._pause > 0

    @property
    def down_because(self) -> str:
        """Return why no request may be sent now; empty while one may, be it as a probe."""
        is_due = self._probe is None and self._clock.monotonic() >= self._probe_at
        return self._refusal if self.is_open and not is_due else ""

    @property
    def _refusal(self) -> str:
        """Return the same text for the whole pause: it is logged whenever it changes."""
        return f"{self._last_failure}; {self._pause:.0f} s after that one request tries again"

    async def turn(self) -> None:
        """Return once a request may be sent: all callers when the breaker is closed, one for each probe while not.

        Requests that did not wait come first, for a few seconds, then callers in their order, so that one that always
        fails is not the only one to try. A caller that then sends nothing delays the next one by the first pause.
        """
        place = object()
        self._queue.append(place)
        try:
            while self.is_open and not self._take_turn(place):
                await self._clock.sleep(POLL_SECONDS)
        finally:
            self._queue.remove(place)

    def _take_turn(self, place: object) -> bool:
        now = self._clock.monotonic()
        turn_at = max(self._probe_at + OTHERS_FIRST_SECONDS, self._last_turn + self._first_pause)
        may_go = self._probe is None and now >= turn_at and self._queue[0] is place
        if may_go:
            self._last_turn = now
        return may_go

    async def own_probe_ended(self, job_id: str) -> None:
        """Wait for a running probe of the same job; its result applies to the job's other chunks."""
        while self._probe is not None and self._probe.job_id == job_id:
            await self._probe.over.wait()

    @contextmanager
    def guard(self, job_id: str) -> Iterator[bool]:
        """Hold one request, retries included; yields whether it is a probe. Raises `DeepgramDown` where none may go.

        A request that is cancelled says nothing about the service; a probe then leaves its turn to the next request.
        """
        probe, served_before = self._admit(job_id), self._served
        try:
            yield probe is not None
        except PaidServiceError as error:
            verdict = self._judge(error, job_id, is_probe=probe is not None, is_up=self._served > served_before)
            self._remember(job_id)
            if verdict is error:
                raise
            verdict.wasted_requests = error.wasted_requests
            raise verdict from error
        else:
            self._odd_jobs.clear()
            self._served_at_failure.pop(job_id, None)
            self._lived()
        finally:
            if probe is not None:
                self._probe = None
                probe.over.set()

    def _admit(self, job_id: str) -> _Probe | None:
        if not self.is_open:
            return None
        gives_way = job_id == self._last_probed and self._clock.monotonic() < self._probe_at + OTHERS_FIRST_SECONDS
        if self.down_because or gives_way:
            raise DeepgramDown(self._refusal)
        self._probe = _Probe(job_id)
        return self._probe

    def _judge(self, error: PaidServiceError, job_id: str, *, is_probe: bool, is_up: bool) -> PaidServiceError:
        """Return the error that the caller gets, and count it."""
        if isinstance(error, DeepgramRejected):
            self._lived()
            return error
        if isinstance(error, DeepgramUnusable) and not self._are_all_odd(job_id):
            self._lived()
            return error
        if not is_up:
            self._failed(error, job_id, is_probe=is_probe)
        if is_up or self._served > self._served_at_failure.get(job_id, self._served):
            return error if _is_too_many(error) else _of_the_request(error)
        if not error.wasted_requests:
            return _of_the_service(error)
        self._paid_probes += is_probe
        is_spared = is_probe and self._paid_probes <= self._most_paid_probes
        return _of_the_service(error) if is_spared else _of_the_request(error)

    def _remember(self, job_id: str) -> None:
        self._served_at_failure.pop(job_id, None)
        self._served_at_failure[job_id] = self._served
        if len(self._served_at_failure) > MOST_JOBS_REMEMBERED:
            del self._served_at_failure[next(iter(self._served_at_failure))]

    def _are_all_odd(self, job_id: str) -> bool:
        if len(self._odd_jobs) < self._limit:
            self._odd_jobs.add(job_id)
        return len(self._odd_jobs) >= self._limit

    def _failed(self, error: PaidServiceError, job_id: str, *, is_probe: bool) -> None:
        self._failures_in_a_row += 1
        self._last_failure = error.reason if type(error) is DeepgramDown else str(error)
        if is_probe:
            self._last_probed = job_id
            self._pause = min(2 * self._pause, self._longest_pause)
        elif not self.is_open and (self._failures_in_a_row >= self._limit or _concerns_all(error)):
            self._pause = self._first_pause
        else:
            return
        self._probe_at = self._clock.monotonic() + self._pause
        DEEPGRAM_DOWN.set(1.0)
        _log.error(
            "deepgram.circuit_opened",
            failures_in_a_row=self._failures_in_a_row,
            pause_seconds=self._pause,
            reason=self._last_failure,
        )

    def _lived(self) -> None:
        self._served += 1
        if self.is_open:
            DEEPGRAM_DOWN.set(0.0)
            _log.info("deepgram.circuit_closed")
        self._failures_in_a_row, self._paid_probes, self._pause, self._last_probed = 0, 0, 0.0, ""


def _concerns_all(error: PaidServiceError) -> bool:
    """Return True where every request would fail alike: key or credit refused, or odd answers to many jobs."""
    out_of_credit = isinstance(error, DeepgramQuotaError) and error.status == OUT_OF_CREDIT
    return out_of_credit or isinstance(error, DeepgramAuthError | DeepgramUnusable)


def _is_too_many(error: PaidServiceError) -> bool:
    """Return True where the service has no time for this request: never the request's own failure."""
    return isinstance(error, DeepgramQuotaError) and error.status == TOO_MANY_REQUESTS and not error.wasted_requests


def _of_the_request(error: PaidServiceError) -> PaidServiceError:
    return error if isinstance(error, Retryable) else DeepgramUnavailable(str(error))


def _of_the_service(error: PaidServiceError) -> PaidServiceError:
    return error if isinstance(error, DeepgramDown) else DeepgramDown(str(error))
