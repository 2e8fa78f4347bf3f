import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")

from worker.adapters.parakeet.network.passes import FIRST_PATIENCE, PassLimit


class Device:
    """A device that holds passes of `room` blocks."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.tried: list[int] = []

    def run(self, limit: PassLimit) -> int | None:
        """Run a pass as large as the limit allows; returns its blocks, None where not even one fits."""
        while True:
            self.tried.append(limit.blocks)
            if limit.blocks <= self.room:
                ran = limit.blocks
                limit.fitted()
                return ran
            if not limit.shrink():
                return None


def test_passes_are_halved_until_they_fit() -> None:
    device = Device(1)

    assert device.run(PassLimit(4)) == 1
    assert device.tried == [4, 2, 1]


def test_a_block_that_does_not_fit_is_not_tried_again() -> None:
    device = Device(0)

    assert device.run(PassLimit(2)) is None
    assert device.tried == [2, 1]


def test_passes_stay_halved_for_a_while_and_then_grow_again() -> None:
    limit, device = PassLimit(8), Device(2)
    device.run(limit)
    device.room = 8

    ran = [device.run(limit) for _ in range(2 * FIRST_PATIENCE)]

    assert ran == [2] * (FIRST_PATIENCE - 1) + [4] * FIRST_PATIENCE + [8]


def test_each_try_that_fails_doubles_the_wait_for_the_next() -> None:
    limit, device = PassLimit(8), Device(4)
    device.run(limit)
    device.tried.clear()

    for _ in range(3 * FIRST_PATIENCE):
        device.run(limit)

    failed = [number for number, tried in enumerate(device.tried) if tried == 8]
    assert failed == [FIRST_PATIENCE - 1, 3 * FIRST_PATIENCE]


def test_what_the_measured_memory_does_not_hold_is_never_tried() -> None:
    limit, device = PassLimit(4), Device(2)
    limit.set_most(2)

    for _ in range(3 * FIRST_PATIENCE):
        device.run(limit)

    assert set(device.tried) == {2}


@given(st.lists(st.integers(1, 16), min_size=1, max_size=300))
def test_whatever_the_room_every_pass_runs_within_it(rooms: list[int]) -> None:
    limit, device = PassLimit(12), Device(12)

    for room in rooms:
        device.room = room

        ran = device.run(limit)

        assert ran is not None
        assert 1 <= ran <= min(room, 12)
