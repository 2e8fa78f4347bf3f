from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st
from numpy.typing import NDArray

torch = pytest.importorskip("torch")

from worker.adapters.parakeet.network.layout import (  # noqa: E402  needs torch
    PassLayout,
    PassShape,
    PassSizes,
    plan_pass,
)

SIZES = PassSizes(block=512, blocks=(1, 2, 4), gap=4, factor=8)

spectrogram_frames = st.lists(st.integers(0, 8 * 501), min_size=1, max_size=12)


class Planned(NamedTuple):
    shape: PassShape
    starts: tuple[int, ...]
    plan: NDArray[np.int64]


def planned(rows: Sequence[int]) -> Planned:
    shape = SIZES.shape_for(rows)
    if shape is None:
        reject()
    return Planned(shape, *plan_pass(shape, rows))


def layout_of(plan: Planned) -> PassLayout:
    return PassLayout.of_plan(plan.shape, torch.from_numpy(plan.plan))


def encoder_frames(rows: int) -> int:
    return -(-rows // 8)


@given(spectrogram_frames)
def test_windows_lie_end_to_end_with_a_gap_after_each(rows: list[int]) -> None:
    plan = planned(rows)

    ends = [start + encoder_frames(count) for start, count in zip(plan.starts, rows, strict=True)]
    assert plan.starts == (0, *(end + 4 for end in ends[:-1]))
    assert ends[-1] + 4 <= plan.shape.frames


@given(spectrogram_frames)
def test_every_window_has_a_slot_of_its_own(rows: list[int]) -> None:
    plan = planned(rows)

    slots = layout_of(plan).slots
    assert slots is not None
    for slot, (start, count) in enumerate(zip(plan.starts, rows, strict=True)):
        length = encoder_frames(count)
        here = np.arange(start, start + length)
        places = slots.places[start : start + length].numpy()
        assert (places == slot * plan.shape.slot_frames + np.arange(length)).all()
        assert (slots.frames[slot, :length].numpy() == here).all()
        assert slots.is_window[slot].tolist() == [place < length for place in range(plan.shape.slot_frames)]
    assert not slots.is_window[len(rows) :].any()


@given(spectrogram_frames)
def test_the_frames_of_the_gaps_are_those_after_the_windows(rows: list[int]) -> None:
    plan = planned(rows)

    gaps = layout_of(plan).gaps
    assert gaps is not None
    beside = {
        start + encoder_frames(count) + number
        for start, count in zip(plan.starts, rows, strict=True)
        for number in range(4)
    }
    assert set(gaps.tolist()) - {plan.shape.frames - 1} == beside - {plan.shape.frames - 1}


@given(spectrogram_frames)
def test_rows_set_to_zero_before_a_strided_convolution_lie_beside_windows_and_in_none(rows: list[int]) -> None:
    plan = planned(rows)

    for level, scale in ((0, 2), (1, 4)):
        within, beside = set(), set()
        for start, count in zip(plan.starts, rows, strict=True):
            first, end = start * 8 // scale, start * 8 // scale + -(-count // scale)
            within |= set(range(first, end))
            beside |= {first - 1, end}
        marked = set()
        for block, stretch in enumerate(layout_of(plan).stretches):
            lead = (block * 512 - 1) * 8 // scale
            inside = {lead + row for row in stretch.edges[level].tolist()}
            window_rows = set(range(max(lead, 0), lead + (512 + 1) * 8 // scale)) & beside
            assert window_rows <= inside
            marked |= inside if window_rows else set()
        assert not marked & within


def test_a_block_is_subsampled_with_the_frame_before_it() -> None:
    shape = PassShape(frames=1024, block=512, slots=4, slot_frames=384, gap=4, factor=8)

    stretches = layout_of(Planned(shape, *plan_pass(shape, [8 * 375, 8 * 375]))).stretches

    assert [(one.rows.start, one.rows.stop, one.lead_frames) for one in stretches] == [
        (0, 4104, 1),
        (4096, 8200, 1),
    ]


@pytest.mark.parametrize(
    ("frames", "pass_frames", "slots", "slot_frames"),
    [
        ([375], 512, 2, 384),
        ([500], 512, 1, 512),
        ([384, 384], 1024, 4, 384),
        ([313] * 6, 2048, 8, 384),
        ([375, 100, 100, 100, 100], 1024, 6, 384),
        ([100] * 19, 2048, 24, 128),
        ([129] * 15, 2048, 18, 384),
    ],
)
def test_a_shape_is_the_smallest_that_holds_the_windows(
    frames: list[int], pass_frames: int, slots: int, slot_frames: int
) -> None:
    shape = SIZES.shape_for([8 * count for count in frames])

    assert shape is not None
    assert (shape.frames, shape.slots, shape.slot_frames) == (pass_frames, slots, slot_frames)


def test_windows_that_fit_into_no_pass_have_no_shape() -> None:
    assert SIZES.shape_for([8 * 513]) is None
    assert SIZES.shape_for([8 * 375] * 6) is None
    assert SIZES.shape_for([1] * 400) is None


@given(spectrogram_frames)
def test_a_plan_is_as_long_as_its_shape_says_and_its_indices_are_in_range(rows: list[int]) -> None:
    plan = planned(rows)

    assert len(plan.plan) == plan.shape.plan_size <= SIZES.longest_plan
    layout = layout_of(plan)
    assert layout.slots is not None
    assert int(layout.slots.frames.max()) < plan.shape.frames
    assert int(layout.slots.places.max()) < plan.shape.slots * plan.shape.slot_frames
