from contextlib import suppress

import pytest

from worker.adapters.deepgram.breaker import CircuitBreaker
from worker.errors import DeepgramQuotaError, DeepgramUnavailable, PaidServiceError, TranscriptionTimeout


class Hand:
    """A clock moved by hand."""

    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def breaker(clock: Hand) -> CircuitBreaker:
    return CircuitBreaker(clock, failures=3, first_pause_seconds=10, longest_pause_seconds=30)


def fail(breaker: CircuitBreaker, error: PaidServiceError | None = None) -> None:
    with suppress(PaidServiceError), breaker.guard():
        raise error or DeepgramUnavailable("down")


def succeed(breaker: CircuitBreaker) -> None:
    with breaker.guard():
        pass


def is_open(breaker: CircuitBreaker) -> bool:
    reached = False
    with suppress(DeepgramUnavailable), breaker.guard():
        reached = True
        raise DeepgramUnavailable("down")
    return not reached


def opened(breaker: CircuitBreaker) -> CircuitBreaker:
    for _ in range(3):
        fail(breaker)
    return breaker


def test_failures_in_a_row_open_it(breaker: CircuitBreaker) -> None:
    fail(breaker)
    fail(breaker, TranscriptionTimeout("deepgram", 60))
    fail(breaker)

    with pytest.raises(DeepgramUnavailable, match=r"3 requests failed; the next one may go in 10 s"), breaker.guard():
        raise AssertionError("nothing may be sent")


def test_a_success_in_between_starts_the_count_again(breaker: CircuitBreaker) -> None:
    for _ in range(5):
        fail(breaker)
        fail(breaker)
        succeed(breaker)


def test_a_refusal_is_the_sign_of_a_service_that_is_up(breaker: CircuitBreaker) -> None:
    fail(breaker)
    fail(breaker)
    fail(breaker, DeepgramQuotaError(429, "slow down"))
    fail(breaker)

    succeed(breaker)


def test_after_the_pause_one_request_probes_and_the_others_wait(breaker: CircuitBreaker, clock: Hand) -> None:
    opened(breaker)
    clock.seconds += 10

    with breaker.guard():
        assert is_open(breaker)

    succeed(breaker)


def test_every_failed_probe_doubles_the_pause_up_to_the_longest(breaker: CircuitBreaker, clock: Hand) -> None:
    opened(breaker)

    for pause in (10, 20, 30, 30):
        clock.seconds += pause - 0.1
        assert is_open(breaker)
        clock.seconds += 0.1
        fail(breaker)


def test_a_probe_that_succeeds_closes_it_with_the_first_pause_again(breaker: CircuitBreaker, clock: Hand) -> None:
    opened(breaker)
    clock.seconds += 10
    fail(breaker)
    clock.seconds += 20

    succeed(breaker)

    opened(breaker)
    clock.seconds += 10
    succeed(breaker)


def test_a_cancelled_probe_leaves_its_turn_to_the_next(breaker: CircuitBreaker, clock: Hand) -> None:
    opened(breaker)
    clock.seconds += 10

    with suppress(GeneratorExit), breaker.guard():
        raise GeneratorExit

    succeed(breaker)


def test_requests_sent_before_it_opened_do_not_lengthen_the_pause(breaker: CircuitBreaker, clock: Hand) -> None:
    with suppress(DeepgramUnavailable), breaker.guard():
        opened(breaker)
        clock.seconds += 5
        raise DeepgramUnavailable("late")

    clock.seconds += 5
    succeed(breaker)


def test_the_success_of_a_request_sent_before_it_opened_closes_it(breaker: CircuitBreaker) -> None:
    with breaker.guard():
        opened(breaker)

    succeed(breaker)
