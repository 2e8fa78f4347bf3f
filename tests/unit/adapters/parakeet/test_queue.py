import asyncio

import numpy as np
import pytest

from worker.adapters.parakeet.scheduler import Window, WindowQueue
from worker.ports import Recognition


@pytest.fixture
def queue() -> WindowQueue:
    return WindowQueue()


def window(job_id: str, seconds: float = 4, *, team_id: str = "") -> Window:
    samples = np.zeros(round(seconds * 16_000), dtype=np.int16)
    answer: asyncio.Future[Recognition] = asyncio.get_running_loop().create_future()
    return Window(samples=samples, job_id=job_id, team_id=team_id, answer=answer)


def queued(queue: WindowQueue, *windows: Window) -> tuple[Window, ...]:
    for one in windows:
        queue.add(one)
    return windows


async def test_one_jobs_windows_keep_their_order(queue: WindowQueue) -> None:
    windows = queued(queue, *(window("one") for _ in range(3)))

    assert queue.in_turn() == list(windows)


async def test_jobs_take_turns(queue: WindowQueue) -> None:
    a1, a2, a3, b1, c1 = queued(queue, *(window(job) for job in ("a", "a", "a", "b", "c")))

    assert queue.in_turn() == [a1, b1, c1, a2, a3]


async def test_the_turn_passes_on_with_every_batch(queue: WindowQueue) -> None:
    a1, a2, b1, b2 = queued(queue, *(window(job) for job in ("a", "a", "b", "b")))

    queue.remove([a1])

    assert queue.in_turn() == [b1, a2, b2]


async def test_a_job_that_comes_late_waits_for_one_batch_of_each_other_job(queue: WindowQueue) -> None:
    queued(queue, *(window(job) for job in ("a", "b") for _ in range(100)))
    (late,) = queued(queue, window("late"))

    batches = 0
    while (leader := queue.in_turn()[0]) is not late:
        queue.remove([leader])
        batches += 1

    assert batches == 2


async def test_a_cancelled_window_is_dropped(queue: WindowQueue) -> None:
    a, b, c = (window("one") for _ in range(3))
    queue.requeue([[a], [b]])
    queue.add(c)
    a.answer.cancel()
    c.answer.cancel()

    assert queue.has_retries
    assert queue.pop_retry() == [b]
    assert queue.in_turn() == []
    assert list(queue) == []


async def test_batches_that_are_tried_again_come_back_one_by_one_in_order(queue: WindowQueue) -> None:
    a, b, c, d = (window("one") for _ in range(4))
    queue.requeue([[c]])
    queue.requeue([[a, b]])
    queue.add(d)

    assert [queue.pop_retry(), queue.pop_retry(), queue.pop_retry()] == [[a, b], [c], []]
    assert queue.in_turn() == [d]


async def test_a_window_longer_than_the_model_was_trained_on_is_refused() -> None:
    with pytest.raises(ValueError, match="640960 samples is longer than 40 s"):
        window("one", seconds=40.06)


async def test_teams_take_turns_and_so_do_the_jobs_of_a_team(queue: WindowQueue) -> None:
    a1, a2, b1, c1, c2 = queued(
        queue,
        window("a", team_id="many"),
        window("a", team_id="many"),
        window("b", team_id="many"),
        window("c", team_id="few"),
        window("c", team_id="few"),
    )

    assert queue.in_turn() == [a1, c1, b1, c2, a2]


async def test_the_turn_passes_on_among_the_jobs_of_a_team(queue: WindowQueue) -> None:
    a1, a2, b1, b2 = queued(queue, *(window(job, team_id="one") for job in ("a", "a", "b", "b")))

    queue.remove([a1])

    assert queue.in_turn() == [b1, a2, b2]


async def test_jobs_without_a_team_take_turns_with_teams(queue: WindowQueue) -> None:
    a1, b1, c1, d1 = queued(
        queue, window("a", team_id="team"), window("b", team_id="team"), window("c"), window("team")
    )

    assert queue.in_turn() == [a1, c1, d1, b1]
