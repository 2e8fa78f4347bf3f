import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from tests.support.clock import FakeClock
from tests.support.telemetry import render, value
from worker.adapters.deepgram.breaker import CircuitBreaker
from worker.errors import (
    DeepgramAuthError,
    DeepgramDown,
    DeepgramQuotaError,
    DeepgramRejected,
    DeepgramUnavailable,
    DeepgramUnusable,
    PaidServiceError,
    Retryable,
    ServiceDown,
    TranscriptionTimeout,
)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def breaker(clock: FakeClock) -> CircuitBreaker:
    return CircuitBreaker(clock, failures=3, first_pause_seconds=10, longest_pause_seconds=30, paid_probes=2)


def down() -> PaidServiceError:
    return DeepgramDown("status 503")


def timeout(*, wasted: int = 1) -> PaidServiceError:
    error = TranscriptionTimeout("deepgram", 60)
    error.wasted_requests = wasted
    return error


def odd() -> PaidServiceError:
    error = DeepgramUnusable("it cannot be read as JSON")
    error.wasted_requests = 2
    return error


def fail(
    breaker: CircuitBreaker, error: PaidServiceError | None = None, job: str = "job", *, meanwhile: str | None = None
) -> PaidServiceError:
    """A request that fails so, while one of another job is served; what its caller gets."""
    try:
        with breaker.guard(job):
            if meanwhile:
                succeed(breaker, meanwhile)
            raise error or down()
    except PaidServiceError as left:
        return left


def succeed(breaker: CircuitBreaker, job: str = "job") -> None:
    with breaker.guard(job):
        pass


def opened(breaker: CircuitBreaker) -> CircuitBreaker:
    for number in range(3):
        fail(breaker, job=f"job-{number}")
    assert breaker.is_open
    return breaker


def test_failures_in_a_row_open_it_and_it_says_why_and_for_how_long(breaker: CircuitBreaker) -> None:
    fail(breaker)
    fail(breaker, timeout())
    fail(breaker)

    with (
        pytest.raises(DeepgramDown, match=r"status 503; 10 s after that one request tries again"),
        breaker.guard("job"),
    ):
        raise AssertionError("nothing may be sent")
    assert "10 s after that one request tries again" in breaker.down_because


def test_the_gauge_is_up_from_the_failures_to_the_next_answer(breaker: CircuitBreaker, clock: FakeClock) -> None:
    render()
    opened(breaker)
    clock._seconds += 10
    while_down = value(render(), "klipstream_deepgram_down")

    succeed(breaker)

    assert (while_down, value(render(), "klipstream_deepgram_down")) == (1, 0)


def test_a_success_in_between_starts_the_count_again(breaker: CircuitBreaker) -> None:
    for _ in range(5):
        fail(breaker)
        fail(breaker)
        succeed(breaker)

    assert not breaker.is_open


@pytest.mark.parametrize("error", [DeepgramRejected(400, "bad audio"), odd()])
def test_an_answer_about_one_request_is_a_sign_of_life(breaker: CircuitBreaker, error: PaidServiceError) -> None:
    fail(breaker)
    fail(breaker)

    left = fail(breaker, error)
    fail(breaker, job="another")

    assert left is error
    assert not breaker.is_open


@pytest.mark.parametrize("error", [DeepgramAuthError(401, "no such key"), DeepgramQuotaError(402, "no credit")])
def test_a_refusal_of_the_account_opens_it_at_once(breaker: CircuitBreaker, error: PaidServiceError) -> None:
    left = fail(breaker, error)

    assert left is error
    assert isinstance(left, ServiceDown)
    assert str(error) in breaker.down_because


def test_too_many_requests_open_it_like_any_failure(breaker: CircuitBreaker) -> None:
    for _ in range(3):
        assert not breaker.is_open
        fail(breaker, DeepgramQuotaError(429, "slow down"))

    assert breaker.is_open


def test_what_was_not_billed_is_the_services_failure(breaker: CircuitBreaker) -> None:
    assert isinstance(fail(breaker, timeout(wasted=0)), ServiceDown)


def test_what_may_be_billed_counts_against_the_job_and_keeps_its_bill(breaker: CircuitBreaker) -> None:
    error = down()
    error.wasted_requests = 1

    left = fail(breaker, error)

    assert isinstance(left, Retryable)
    assert left.wasted_requests == 1


def test_probes_that_may_be_billed_are_the_services_failures_but_not_without_bound(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    opened(breaker)

    kinds = []
    for pause in (10, 20, 30):
        clock._seconds += pause
        kinds.append(isinstance(fail(breaker, timeout(), f"job-{pause}"), ServiceDown))

    assert kinds == [True, True, False]


def test_a_failure_while_another_request_is_served_is_the_requests_own(breaker: CircuitBreaker) -> None:
    left = fail(breaker, meanwhile="another")

    assert isinstance(left, DeepgramUnavailable)
    assert "status 503" in str(left)
    assert not breaker.is_open


def test_a_job_that_fails_again_after_others_were_served_is_at_fault_itself(breaker: CircuitBreaker) -> None:
    first = fail(breaker, job="poison")
    succeed(breaker, "another")

    second = fail(breaker, job="poison")

    assert (isinstance(first, ServiceDown), isinstance(second, Retryable)) == (True, True)


def test_too_many_requests_are_never_the_requests_own_failure(breaker: CircuitBreaker) -> None:
    left = fail(breaker, DeepgramQuotaError(429, "slow down"), meanwhile="another")

    assert isinstance(left, ServiceDown)


def test_odd_answers_to_one_job_never_open_it(breaker: CircuitBreaker) -> None:
    for _ in range(20):
        assert isinstance(fail(breaker, odd()), DeepgramUnusable)

    assert not breaker.is_open


def test_odd_answers_to_one_job_after_another_and_no_transcript_open_it(breaker: CircuitBreaker) -> None:
    for number in range(3):
        assert isinstance(fail(breaker, odd(), f"job-{number}"), Retryable)

    assert breaker.is_open


def test_odd_answers_with_transcripts_in_between_do_not_open_it(breaker: CircuitBreaker) -> None:
    for number in range(9):
        fail(breaker, odd(), f"job-{number}")
        if number % 2:
            succeed(breaker)

    assert not breaker.is_open


def test_after_the_pause_one_request_probes_and_the_others_are_refused(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    opened(breaker)
    clock._seconds += 10
    assert breaker.down_because == ""

    with breaker.guard("job") as is_probe:
        assert is_probe
        with pytest.raises(DeepgramDown, match="one request tries again"), breaker.guard("another"):
            raise AssertionError("nothing may be sent")

    with breaker.guard("job") as is_probe:
        assert not is_probe


def test_every_failed_probe_doubles_the_pause_up_to_the_longest(breaker: CircuitBreaker, clock: FakeClock) -> None:
    opened(breaker)

    for pause in (10, 20, 30, 30):
        clock._seconds += pause - 0.1
        assert breaker.down_because
        clock._seconds += 0.1
        assert not breaker.down_because
        fail(breaker, job=f"another-{clock.monotonic()}")


def test_a_probe_that_succeeds_closes_it_with_the_first_pause_again(breaker: CircuitBreaker, clock: FakeClock) -> None:
    opened(breaker)
    clock._seconds += 10
    fail(breaker)
    clock._seconds += 20

    succeed(breaker, "another")

    opened(breaker)
    clock._seconds += 10
    succeed(breaker)


def test_a_cancelled_probe_leaves_its_turn_to_the_next(breaker: CircuitBreaker, clock: FakeClock) -> None:
    opened(breaker)
    clock._seconds += 10

    with suppress(GeneratorExit), breaker.guard("job"):
        raise GeneratorExit

    succeed(breaker)


def test_requests_sent_before_it_opened_do_not_lengthen_the_pause(breaker: CircuitBreaker, clock: FakeClock) -> None:
    with suppress(DeepgramDown), breaker.guard("job"):
        opened(breaker)
        clock._seconds += 5
        raise down()

    clock._seconds += 5
    succeed(breaker)


def test_the_success_of_a_request_sent_before_it_opened_closes_it(breaker: CircuitBreaker) -> None:
    with breaker.guard("job"):
        opened(breaker)

    succeed(breaker)


class Waiters:
    """Callers that wait for their turn; `let_go` has their numbers in order."""

    def __init__(self, breaker: CircuitBreaker) -> None:
        self._breaker = breaker
        self.let_go: list[int] = []
        self.tasks: list[asyncio.Task[None]] = []

    def wait(self, number: int) -> None:
        self.tasks.append(asyncio.create_task(self._wait(number)))

    async def _wait(self, number: int) -> None:
        await self._breaker.turn()
        self.let_go.append(number)


@pytest.fixture
async def waiters(breaker: CircuitBreaker) -> AsyncIterator[Waiters]:
    waiters = Waiters(breaker)
    yield waiters
    for task in waiters.tasks:
        task.cancel()
    await asyncio.wait(waiters.tasks)


async def test_a_closed_breaker_delays_no_request(waiters: Waiters, clock: FakeClock) -> None:
    waiters.wait(1)
    waiters.wait(2)
    await clock.rest()

    assert waiters.let_go == [1, 2]


async def test_each_probe_is_the_turn_of_the_caller_that_waits_longest(
    waiters: Waiters, breaker: CircuitBreaker, clock: FakeClock
) -> None:
    opened(breaker)
    for number in (1, 2, 3):
        waiters.wait(number)

    turns = []
    for pause in (10, 20, 30):
        await clock.advance(pause + 2)
        turns.append(list(waiters.let_go))
        await clock.advance(1)
        fail(breaker, job=f"job-{pause}")

    assert turns == [[], [1], [1, 2]]
    assert waiters.let_go == [1, 2, 3]


async def test_when_it_closes_everyone_is_let_go(waiters: Waiters, breaker: CircuitBreaker, clock: FakeClock) -> None:
    opened(breaker)
    for number in (1, 2, 3):
        waiters.wait(number)
    await clock.advance(10)

    succeed(breaker)
    await clock.advance(1)

    assert sorted(waiters.let_go) == [1, 2, 3]


async def test_a_caller_that_never_sends_holds_the_next_one_up_for_one_pause_only(
    waiters: Waiters, breaker: CircuitBreaker, clock: FakeClock
) -> None:
    opened(breaker)
    waiters.wait(1)
    waiters.wait(2)

    await clock.advance(13 + 9)
    assert waiters.let_go == [1]
    await clock.advance(1)

    assert waiters.let_go == [1, 2]


async def test_the_job_that_failed_as_a_probe_gives_way_to_others_for_a_moment(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    opened(breaker)
    clock._seconds += 10
    fail(breaker, job="poison")
    clock._seconds += 20

    with pytest.raises(DeepgramDown), breaker.guard("poison"):
        raise AssertionError("nothing may be sent")
    clock._seconds += 3
    with breaker.guard("poison") as is_probe:
        assert is_probe


async def test_a_caller_that_leaves_gives_its_place_up(
    waiters: Waiters, breaker: CircuitBreaker, clock: FakeClock
) -> None:
    opened(breaker)
    waiters.wait(1)
    waiters.wait(2)
    await clock.rest()

    waiters.tasks[0].cancel()
    await clock.advance(13)

    assert waiters.let_go == [2]


async def test_a_probe_is_awaited_by_its_own_job_alone(breaker: CircuitBreaker, clock: FakeClock) -> None:
    opened(breaker)
    clock._seconds += 10
    with breaker.guard("job"):
        await breaker.own_probe_ended("another")
        same = asyncio.create_task(breaker.own_probe_ended("job"))
        await clock.rest()
        assert not same.done()

    await same
