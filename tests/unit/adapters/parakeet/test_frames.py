from collections.abc import Iterator, Sequence
from statistics import median

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.adapters.parakeet.frames import (
    LONGEST_WINDOW_SAMPLES,
    PassPlan,
    encoder_frames,
    pass_capacity,
)
from worker.adapters.parakeet.network.config import network_config
from worker.core.transcript.planning import ChunkCutter
from worker.ports import SAMPLE_RATE_HZ, Pcm

CAPACITY = pass_capacity(8)
SIZES = (384, 1152, 3072)
PLAN = PassPlan(capacity=CAPACITY, most_windows=32, sizes=SIZES)
window_frames = st.integers(1, 501)


def passes(plan: PassPlan, frames: Sequence[int]) -> Iterator[list[int]]:
    """The windows of each pass, by their frames, until all of them have had one."""
    waiting = list(frames)
    while waiting:
        taken = plan.next_pass(waiting)
        yield [waiting[position] for position in taken]
        waiting = [one for position, one in enumerate(waiting) if position not in taken]


@pytest.mark.parametrize(
    ("samples", "frames"), [(0, 0), (159, 0), (160, 1), (1280, 1), (1440, 2), (30 * 16_000, 375), (40 * 16_000, 500)]
)
def test_a_window_has_a_frame_for_every_80_ms(samples: int, frames: int) -> None:
    assert encoder_frames(samples) == frames


@given(windows=st.integers(1, 256))
def test_a_full_pass_holds_its_windows_of_30_s_and_the_longest_window_in_any_case(windows: int) -> None:
    capacity = pass_capacity(windows)

    assert capacity >= windows * encoder_frames(30 * SAMPLE_RATE_HZ)
    assert capacity >= encoder_frames(LONGEST_WINDOW_SAMPLES)


def test_a_plan_that_does_not_hold_the_longest_window_is_refused() -> None:
    with pytest.raises(ValueError, match="does not hold a window of 504 frames"):
        PassPlan(capacity=503, most_windows=1, gap_frames=4)


@given(frames=st.lists(window_frames, max_size=40), most_windows=st.integers(1, 32))
def test_every_window_is_in_one_pass_that_holds_it_and_the_first_one_goes_first(
    frames: list[int], most_windows: int
) -> None:
    plan = PassPlan(capacity=CAPACITY, most_windows=most_windows, sizes=PLAN.sizes)

    planned = list(passes(plan, frames))

    assert sorted(one for taken in planned for one in taken) == sorted(frames)
    assert all(len(taken) <= most_windows and plan.pass_frames(sum(taken)) in plan.sizes for taken in planned)
    assert [plan.next_pass(frames)[0]] == [0] if frames else planned == []


def test_a_pass_without_fixed_sizes_has_the_frames_of_its_windows() -> None:
    plan = PassPlan(capacity=CAPACITY, most_windows=32)

    assert plan.next_pass([300, 20]) == [0, 1]
    assert plan.pass_frames(320) == 320


def test_a_window_that_does_not_fit_lets_a_later_one_pass() -> None:
    assert PLAN.next_pass([375] * 8 + [375, 70]) == [0, 1, 2, 3, 4, 5, 6, 7, 9]


def test_where_only_a_full_pass_is_wanted_windows_that_fit_into_one_stay() -> None:
    assert PLAN.next_pass([375] * 8, only_full=True) == []
    assert PLAN.next_pass([375] * 9, only_full=True) == list(range(8))


@pytest.mark.parametrize(
    ("frames", "sizes"),
    [
        ([300], [384]),
        ([400], [1152]),
        ([375] * 2, [384, 384]),
        ([375] * 3, [1152]),
        ([375, 400, 400], [384, 1152]),
        ([375] * 4, [1152, 384]),
        ([375] * 7, [1152, 1152, 384]),
        ([375] * 8, [3072]),
        ([375] * 9, [3072, 384]),
    ],
)
def test_few_windows_are_divided_in_the_way_that_computes_least(frames: list[int], sizes: list[int]) -> None:
    assert [PLAN.pass_frames(sum(taken)) for taken in passes(PLAN, frames)] == sizes


def speech_like(seconds: float, rng: np.random.Generator) -> Pcm:
    """Phrases of noise with pauses between them, as a planner sees speech."""
    parts: list[Pcm] = []
    while sum(map(len, parts)) < seconds * SAMPLE_RATE_HZ:
        phrase, pause = rng.uniform(0.8, 6.0), rng.uniform(0.15, 0.9)
        for level, length in ((3000.0, phrase), (20.0, pause)):
            parts.append(rng.normal(0.0, level, int(length * SAMPLE_RATE_HZ)).astype(np.int16))
    return np.concatenate(parts)[: int(seconds * SAMPLE_RATE_HZ)]


def frames_of_windows(samples: Pcm) -> list[int]:
    """The encoder frames of the windows that the worker cuts a file into."""
    cutter = ChunkCutter(chunk_seconds=600)
    chunks = (*cutter.push(samples), *cutter.finish())
    return [encoder_frames(span.end_sample - span.start_sample) for chunk in chunks for span in chunk.windows]


def plan_of_gpu(multiprocessors: int) -> PassPlan:
    """The plan for parakeet-tdt-0.6b on a GPU with memory enough."""
    gpu = pytest.importorskip("worker.adapters.parakeet.network.passes", exc_type=ImportError)
    random_model = pytest.importorskip("bench.bare_machine.random_model", exc_type=ImportError)
    config = network_config(random_model.raw_config(["a"] * 1024, layers=24))
    sizes = gpu.pass_sizes(config, multiprocessors, None)
    return PassPlan(capacity=sizes.frames[-1], most_windows=32, sizes=sizes.frames, gap_frames=sizes.gap)


@pytest.fixture(scope="module")
def files() -> list[list[int]]:
    """The encoder frames of the windows of 100 files of 1 to 5 minutes."""
    rng = np.random.default_rng(15)
    return [frames_of_windows(speech_like(rng.uniform(60, 300), rng)) for _ in range(100)]


@pytest.mark.campaign
@pytest.mark.parametrize(
    ("multiprocessors", "measured"), [(58, 1.24), (132, 1.40)], ids=["on an L4", "on an H100 or H200"]
)
def test_files_of_1_to_5_minutes_take_at_most_1_4_times_their_own_frames_each_by_itself(
    files: list[list[int]], multiprocessors: int, measured: float
) -> None:
    plan = plan_of_gpu(multiprocessors)

    shares = [computed_frames(plan, file) / sum(file) for file in files]

    assert median(shares) <= measured


@pytest.mark.campaign
def test_passes_of_a_long_queue_are_nearly_full() -> None:
    rng = np.random.default_rng(16)
    frames = frames_of_windows(speech_like(3600, rng))

    assert sum(frames) / computed_frames(plan_of_gpu(58), frames) >= 0.93


def computed_frames(plan: PassPlan, frames: Sequence[int]) -> int:
    """Return the frames of all passes for windows of the given frames."""
    in_a_pass = [one + plan.gap_frames for one in frames]
    return sum(plan.pass_frames(sum(taken)) for taken in passes(plan, in_a_pass))
