"""Passes, graphs and tokens of the 0.6B architecture. Run with `pytest -m gpu` where there is a GPU."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.support.engines.agreement import agreement_with_nemo
from tests.support.engines.network import frames_of
from worker.ports import Pcm

if TYPE_CHECKING:
    import torch

    from worker.adapters.parakeet.network.transcriber import Transcriber

LARGEST_DIFFERENCE = {"bfloat16": 0.03, "float16": 0.004}
"""Distance of the encoder's output from that in float32, by norm. On a CPU with a width of 256: 0.014 and 0.0015."""

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore"),  # NeMo's are not ours to mend
    pytest.mark.skipif(not Path("/dev/nvidiactl").exists(), reason="no NVIDIA GPU on this machine"),
]


def transcriber(weights: Path, precision: str, *, graphs: bool = True, memory_gib: float = 20) -> "Transcriber":
    import torch  # noqa: PLC0415

    from worker.adapters.parakeet.loading.model_files import open_model_files  # noqa: PLC0415
    from worker.adapters.parakeet.network.cuda import open_device  # noqa: PLC0415
    from worker.adapters.parakeet.network.transcriber import Transcriber  # noqa: PLC0415

    refusals: list[dict[str, object]] = []

    def report(event: str, /, **fields: object) -> None:
        if event == "engine.graph_refused":
            refusals.append(fields)

    network = Transcriber(
        open_model_files(weights),
        open_device("cuda", memory_gib),
        getattr(torch, precision),
        graphs=graphs,
        report=report,
    )
    network.warm_up()
    assert refusals == []
    return network


@pytest.fixture(scope="module", params=["bfloat16", "float16"])
def network(request: pytest.FixtureRequest, random_weights: Path) -> "Transcriber":
    """Warm, with a recording of every pass that `many_windows` need."""
    return transcriber(random_weights, request.param)


@pytest.fixture
def no_waiting() -> Iterator[None]:
    """An error where the host waits for the device."""
    import torch  # noqa: PLC0415

    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode(before)


def frames(network: "Transcriber", windows: Sequence[Pcm]) -> "list[torch.Tensor]":
    return frames_of(list(network._passes(windows)))


def passes_of_every_size(network: "Transcriber", windows: Sequence[Pcm]) -> list[list[Pcm]]:
    """The first window alone, and with as many others as fill each size of pass."""
    hop = 1_280
    sizes = [[windows[0]]]
    for size in network.flow.plan.sizes:
        taken = [windows[0]]
        for window in windows[1:]:
            if sum(len(one) // hop + 6 for one in (*taken, window)) <= size:
                taken.append(window)
        sizes.append(taken)
    return sizes


def test_the_decoder_is_recorded_before_the_first_window(network: "Transcriber") -> None:
    assert network.parts.decoder._recordings


def test_a_windows_frames_are_the_same_in_a_pass_of_every_size_recorded_or_not(
    network: "Transcriber", many_windows: tuple[Pcm, ...]
) -> None:
    import torch  # noqa: PLC0415

    (expected,) = frames(network, many_windows[:1])

    for windows in passes_of_every_size(network, many_windows):
        plain = frames(network, windows)
        while network.idle():
            pass
        recorded = frames(network, windows)
        backwards = frames(network, windows[::-1])[::-1]

        assert torch.equal(plain[0], expected), len(windows)
        assert all(map(torch.equal, plain, recorded)), len(windows)
        assert all(map(torch.equal, plain, backwards)), len(windows)
    assert network._recorded is not None
    assert len(network._recorded.recorded) >= len(network.flow.plan.sizes)


def test_words_and_confidences_are_the_same_with_graphs_and_without(
    random_weights: Path, many_windows: tuple[Pcm, ...]
) -> None:
    plain, graphs = (transcriber(random_weights, "bfloat16", graphs=graphs) for graphs in (False, True))
    windows = many_windows[:16]
    graphs(windows)
    while graphs.idle():
        pass

    assert graphs(windows) == plain(windows)


def test_recordings_that_memory_forces_out_leave_words_as_they_are(
    random_weights: Path, many_windows: tuple[Pcm, ...]
) -> None:
    """Dropping one graph of several would free a workspace that the others write to."""
    import torch  # noqa: PLC0415

    network = transcriber(random_weights, "bfloat16", memory_gib=6)
    windows = many_windows[:24]
    expected = network(windows)
    while network.idle():
        pass
    assert network(windows) == expected

    assert network._recorded is not None
    network._recorded.forget()
    torch.cuda.empty_cache()
    taken = torch.empty(2**29, dtype=torch.uint8, device="cuda").fill_(255)

    assert network(windows) == expected
    assert bool((taken == 255).all())


def test_rows_are_bounded_by_the_memory_cap(random_weights: Path, many_windows: tuple[Pcm, ...]) -> None:
    import torch  # noqa: PLC0415

    torch.cuda.reset_peak_memory_stats()
    network = transcriber(random_weights, "bfloat16", memory_gib=4)

    network(many_windows[:64])

    assert torch.cuda.max_memory_reserved() <= 4 * 2**30


@pytest.mark.usefixtures("no_waiting")
def test_windows_are_sent_through_the_encoder_without_waiting_for_it(network: "Transcriber") -> None:
    silence = np.zeros(15 * 16_000, dtype=np.int16)

    encoded = network.encode([silence] * 4)

    assert len(encoded.seconds) == 4


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_frames_in_short_precision_are_finite_and_near_those_in_float32(
    random_weights: Path, many_windows: tuple[Pcm, ...], precision: str
) -> None:
    """Tokens of random weights are no measure: the best of 1,025 has a probability of 0.002."""
    import torch  # noqa: PLC0415

    exact = torch.cat(frames(transcriber(random_weights, "float32"), many_windows[:16]))

    short = torch.cat(frames(transcriber(random_weights, precision), many_windows[:16])).float()

    assert bool(short.isfinite().all())
    assert float((short - exact).norm() / exact.norm()) <= LARGEST_DIFFERENCE[precision]


def test_tokens_in_float32_are_nemos_one_by_one(random_weights: Path, many_windows: tuple[Pcm, ...]) -> None:
    import torch  # noqa: PLC0415

    agreed = agreement_with_nemo(random_weights, many_windows, device="cuda", dtype=torch.float32)

    assert agreed.tokens
    assert agreed.wrong_tokens == 0
