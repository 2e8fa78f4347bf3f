import asyncio

import numpy as np
import pytest

from worker.adapters.parakeet.queue import Waiting, Window

SHORT, LONG = 4, 24


@pytest.fixture
def waiting() -> Waiting:
    return Waiting()


def window(job_id: str, seconds: float = SHORT) -> Window:
    samples = np.zeros(round(seconds * 16_000), dtype=np.int16)
    return Window(samples=samples, job_id=job_id, answer=asyncio.get_running_loop().create_future())


def lined_up(waiting: Waiting, *windows: Window) -> tuple[Window, ...]:
    for one in windows:
        waiting.add(one)
    return windows


async def test_one_jobs_windows_go_in_their_order(waiting: Waiting) -> None:
    a, b, c = lined_up(waiting, *(window("one") for _ in range(3)))

    assert waiting.take(2, only_full=False) == [a, b]
    assert waiting.take(2, only_full=False) == [c]
    assert waiting.take(2, only_full=False) == []


async def test_jobs_share_a_batch_in_turn(waiting: Waiting) -> None:
    a1, a2, a3, b1, c1 = lined_up(waiting, *(window(job) for job in ("a", "a", "a", "b", "c")))

    assert waiting.take(4, only_full=False) == [a1, b1, c1, a2]
    assert waiting.take(4, only_full=False) == [a3]


async def test_a_batch_holds_windows_of_one_bucket_the_one_that_fills_most(waiting: Waiting) -> None:
    a_short, a_long, b_long = lined_up(waiting, window("a", SHORT), window("a", LONG), window("b", LONG))

    assert waiting.take(8, only_full=False) == [a_long, b_long]
    assert waiting.take(8, only_full=False) == [a_short]


async def test_of_buckets_that_fill_alike_the_oldest_windows_goes_first(waiting: Waiting) -> None:
    long, short, *_ = lined_up(waiting, *(window("a", seconds) for seconds in (LONG, SHORT, LONG, SHORT)))

    assert waiting.take(1, only_full=False) == [long]
    assert waiting.take(1, only_full=False) == [short]


async def test_where_lengths_may_be_mixed_windows_go_in_their_order_whatever_their_bucket(waiting: Waiting) -> None:
    waiting.mixes_lengths = True
    a, b, c = lined_up(waiting, window("one", SHORT), window("one", LONG), window("one", SHORT))

    assert waiting.take(2, only_full=True) == [a, b]
    assert waiting.take(2, only_full=False) == [c]


async def test_the_turn_passes_on_so_that_a_job_with_an_odd_bucket_is_not_starved(waiting: Waiting) -> None:
    *_, odd = lined_up(waiting, *(window("crowd", LONG) for _ in range(40)), window("odd", SHORT))

    assert odd not in waiting.take(8, only_full=False)
    assert waiting.take(8, only_full=False) == [odd]


async def test_a_small_batch_stays_where_only_a_full_one_is_wanted(waiting: Waiting) -> None:
    a, b = lined_up(waiting, window("one"), window("one"))

    assert waiting.take(3, only_full=True) == []
    assert waiting.take(2, only_full=True) == [a, b]


async def test_a_cancelled_window_is_dropped(waiting: Waiting) -> None:
    a, b, c = lined_up(waiting, *(window("one") for _ in range(3)))
    waiting.take(2, only_full=False)
    waiting.retry([[a], [b]])
    a.answer.cancel()
    c.answer.cancel()

    assert waiting.take(8, only_full=False) == [b]
    assert waiting.take(8, only_full=False) == []


async def test_retries_go_first_each_as_the_batch_it_is(waiting: Waiting) -> None:
    a, b, c, d = lined_up(waiting, *(window("one") for _ in range(4)))
    waiting.take(3, only_full=False)
    waiting.retry([[a, b], [c]])

    assert waiting.take(8, only_full=True) == [a, b]
    assert waiting.take(8, only_full=True) == [c]
    assert waiting.take(8, only_full=False) == [d]
