from hypothesis import given
from hypothesis import strategies as st

from worker.embedded.pubsub.timers import Timers


def test_keys_come_due_in_the_order_of_their_deadlines() -> None:
    timers: Timers[str] = Timers()
    timers.set("late", 3.0)
    timers.set("early", 1.0)
    timers.set("future", 9.0)

    assert timers.next_due() == 1.0
    assert timers.pop_due(3.0) == ["early", "late"]
    assert timers.next_due() == 9.0


def test_a_moved_deadline_counts_and_the_old_one_does_not() -> None:
    timers: Timers[str] = Timers()
    timers.set("key", 1.0)
    timers.set("key", 5.0)

    assert timers.pop_due(4.0) == []
    assert timers.pop_due(5.0) == ["key"]


def test_a_cancelled_deadline_never_comes() -> None:
    timers: Timers[str] = Timers()
    timers.set("key", 1.0)

    timers.cancel("key")
    timers.cancel("never set")

    assert timers.next_due() is None
    assert timers.pop_due(9.0) == []


def test_memory_is_bounded_by_the_live_deadlines_however_often_they_move() -> None:
    timers: Timers[int] = Timers()

    for turn in range(10_000):
        timers.set(turn % 10, float(turn))

    assert len(timers._heap) <= 100


@given(st.lists(st.tuples(st.integers(0, 20), st.none() | st.floats(0, 100)), max_size=300), st.floats(0, 100))
def test_what_is_due_is_what_a_plain_dictionary_says(changes: list[tuple[int, float | None]], now: float) -> None:
    timers: Timers[int] = Timers()
    plain: dict[int, float] = {}
    for key, due in changes:
        if due is None:
            timers.cancel(key)
            plain.pop(key, None)
        else:
            timers.set(key, due)
            plain[key] = due

    assert sorted(timers.pop_due(now)) == sorted(key for key, due in plain.items() if due <= now)
    assert timers.next_due() == min((due for due in plain.values() if due > now), default=None)
