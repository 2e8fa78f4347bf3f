import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from worker.adapters.parakeet.rows import FIRST_PATIENCE, RowsThatFit, rows_within  # noqa: E402  needs torch

SHORT, LONG = 80_000, 480_000


class Device:
    """Holds so many samples at once."""

    def __init__(self, room_samples: int) -> None:
        self.room_samples = room_samples
        self.tried: list[int] = []
        self.peak_samples = 0

    def run(self, rows_that_fit: RowsThatFit, samples: int) -> int:
        """One batch; the rows that it ran with."""

        def work(rows: int) -> int:
            self.tried.append(rows)
            if rows * samples > self.room_samples:
                raise torch.OutOfMemoryError
            self.peak_samples = max(self.peak_samples, rows * samples)
            return rows

        return rows_that_fit.run(samples, work)


@pytest.mark.parametrize(("rows_that_fit", "tries"), [(8, [8]), (5, [8, 4]), (1, [8, 4, 2, 1])])
def test_rows_are_halved_until_they_fit(rows_that_fit: int, tries: list[int]) -> None:
    device = Device(rows_that_fit * LONG)

    ran = device.run(RowsThatFit(8), LONG)

    assert ran == tries[-1]
    assert device.tried == tries


def test_one_row_that_does_not_fit_is_an_error() -> None:
    device = Device(LONG - 1)

    with pytest.raises(torch.OutOfMemoryError):
        device.run(RowsThatFit(2), LONG)

    assert device.tried == [2, 1]


def test_fewer_rows_of_a_long_window_leave_short_ones_alone() -> None:
    rows, device = RowsThatFit(8), Device(4 * LONG)
    device.run(rows, LONG)

    assert device.run(rows, SHORT) == 8


def test_rows_stay_halved_for_a_while_and_then_grow_again() -> None:
    rows, device = RowsThatFit(8), Device(2 * LONG)
    device.run(rows, LONG)
    device.room_samples = 8 * LONG

    ran = [device.run(rows, LONG) for _ in range(2 * FIRST_PATIENCE)]

    assert ran == [2] * (FIRST_PATIENCE - 1) + [4] * FIRST_PATIENCE + [8]


def test_each_try_that_fails_doubles_the_wait_for_the_next() -> None:
    rows, device = RowsThatFit(8), Device(4 * LONG)
    device.run(rows, LONG)
    device.tried.clear()

    for _ in range(3 * FIRST_PATIENCE):
        device.run(rows, LONG)

    failed = [number for number, tried in enumerate(device.tried) if tried == 8]
    assert failed == [FIRST_PATIENCE - 1, 3 * FIRST_PATIENCE]


@given(st.lists(st.tuples(st.integers(1, 40), st.sampled_from([SHORT, LONG])), min_size=1, max_size=300))
def test_whatever_the_room_every_batch_runs_and_the_room_is_never_exceeded(batches: list[tuple[int, int]]) -> None:
    rows, device = RowsThatFit(32), Device(LONG)

    for room, samples in batches:
        device.room_samples = room * LONG
        device.peak_samples = 0

        ran = device.run(rows, samples)

        assert 1 <= ran <= 32
        assert device.peak_samples <= device.room_samples


def test_what_the_measured_memory_does_not_hold_is_never_tried() -> None:
    rows, device = RowsThatFit(64), Device(10 * LONG)
    rows.limit(LONG, rows_within(device.room_samples, LONG, 64))

    for _ in range(3 * FIRST_PATIENCE):
        device.run(rows, LONG)

    assert set(device.tried) == {8}


@pytest.mark.parametrize(
    ("free_bytes", "row_bytes", "most", "rows"),
    [(1000, 100, 8, 8), (1000, 100, 16, 8), (800, 100, 8, 4), (10, 100, 8, 1), (1000, 100, 6, 6), (1000, 100, 12, 6)],
)
def test_rows_are_the_largest_half_of_a_half_that_fits(free_bytes: int, row_bytes: int, most: int, rows: int) -> None:
    assert rows_within(free_bytes, row_bytes, most) == rows
