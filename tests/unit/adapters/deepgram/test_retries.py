import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest

from tests.support.services.deepgram import SkippingClock
from worker.adapters.deepgram.answers import TryFailed, parse_retry_after
from worker.adapters.deepgram.recogniser import RetryPolicy, Tries
from worker.errors import DeepgramQuotaError, DeepgramUnavailable

NOW = datetime(2026, 11, 22, 10, 0, 0, tzinfo=UTC)


@pytest.fixture
def clock() -> SkippingClock:
    return SkippingClock()


def tries(clock: SkippingClock, policy: RetryPolicy | None = None) -> Tries:
    return Tries(policy or RetryPolicy(), clock, random.Random(3), "job")


def failing(*failures: TryFailed) -> Callable[[], Awaitable[str]]:
    left = list(failures)

    async def call() -> str:
        if left:
            raise left.pop(0)
        return "heard"

    return call


def down(**facts: float) -> TryFailed:
    return TryFailed(DeepgramUnavailable("down"), is_worth_repeating=True, **facts)


def wasted() -> TryFailed:
    return TryFailed(DeepgramUnavailable("reset"), is_worth_repeating=True, was_wasted=True)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0", 0),
        ("17", 17),
        ("1.5", 1.5),
        ("-3", 0),
        ("Sun, 22 Nov 2026 10:00:42 GMT", 42),
        ("Sun, 22 Nov 2026 10:00:42 -0000", 42),
        ("Sun, 22 Nov 2026 11:00:42 +0100", 42),
        ("Sun, 22 Nov 2026 09:00:00 GMT", 0),
        ("inf", None),
        ("nan", None),
        ("soon", None),
        ("Sun, 22 Nov 2026 10:00:99999999999999999999 GMT", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert parse_retry_after(header, NOW) == seconds


async def test_waits_are_random_below_a_doubling_bound(clock: SkippingClock) -> None:
    await tries(clock).run(failing(*(down() for _ in range(5))))

    assert len(clock.slept) == 5
    assert all(0 < wait < 2**number for number, wait in enumerate(clock.slept))
    assert len(set(clock.slept)) == 5


async def test_two_workers_do_not_come_back_together() -> None:
    waits = []
    for seed in (1, 2):
        clock = SkippingClock()
        await Tries(RetryPolicy(), clock, random.Random(seed), "job").run(failing(down(retry_after_seconds=5)))
        waits += clock.slept

    assert waits[0] != waits[1]


async def test_what_the_service_asks_for_is_waited_and_a_little_more(clock: SkippingClock) -> None:
    await tries(clock).run(failing(down(retry_after_seconds=17), down(retry_after_seconds=0)))

    assert 17 <= clock.slept[0] <= 18
    assert 0 <= clock.slept[1] <= 1


async def test_a_service_that_asks_for_too_much_is_left_alone(clock: SkippingClock) -> None:
    failure = TryFailed(DeepgramQuotaError(429, "later"), is_worth_repeating=True, retry_after_seconds=61)

    with pytest.raises(DeepgramQuotaError):
        await tries(clock).run(failing(failure))

    assert clock.slept == []


async def test_retries_end_after_the_maximum_number_of_attempts(clock: SkippingClock) -> None:
    with pytest.raises(DeepgramUnavailable) as caught:
        await tries(clock, RetryPolicy(tries=4)).run(failing(*(down() for _ in range(9))))

    assert len(clock.slept) == 3
    assert caught.value.wasted_requests == 0


async def test_what_may_be_billed_is_repeated_once_only(clock: SkippingClock) -> None:
    with pytest.raises(DeepgramUnavailable) as caught:
        await tries(clock).run(failing(wasted(), wasted(), wasted()))

    assert len(clock.slept) == 1
    assert caught.value.wasted_requests == 2


async def test_free_failures_are_still_repeated_after_a_wasted_one(clock: SkippingClock) -> None:
    several = tries(clock)

    heard = await several.run(failing(down(), wasted(), down(), down()))

    assert heard == "heard"
    assert several.wasted == 1


async def test_what_is_not_worth_it_is_not_repeated(clock: SkippingClock) -> None:
    with pytest.raises(DeepgramUnavailable):
        await tries(clock).run(failing(TryFailed(DeepgramUnavailable("no"))))

    assert clock.slept == []
