"""CUDA graphs and tokens of the 0.6B architecture. Run with `pytest -m gpu` where there is a GPU."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from structlog.testing import capture_logs

from tests.support.engines.agreement import BATCH_SIZE, MEMORY_LIMIT_GIB, agreement_with_nemo
from tests.support.engines.parakeet import TINY_OPTIONS
from worker.adapters.parakeet.buckets import BUCKETS_SAMPLES
from worker.ports import Pcm

if TYPE_CHECKING:
    import torch

    from worker.adapters.parakeet.inference import WindowsToWords

MOST_WRONG_IN_SHORT = 0.001

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore"),  # NeMo's are not ours to mend
    pytest.mark.skipif(not Path("/dev/nvidiactl").exists(), reason="no NVIDIA GPU on this machine"),
]


@pytest.fixture(scope="module")
def warm(random_weights: Path) -> "WindowsToWords":
    from worker.adapters.parakeet.inference import WindowsToWords  # noqa: PLC0415  torch
    from worker.adapters.parakeet.model import load_model  # noqa: PLC0415

    options = replace(
        TINY_OPTIONS,
        model_name=str(random_weights),
        device="cuda",
        batch_size=BATCH_SIZE,
        memory_limit_gib=MEMORY_LIMIT_GIB,
    )
    hear = WindowsToWords(load_model(options)[0], BATCH_SIZE)
    with capture_logs() as events:
        hear.warm_up()
    assert [event for event in events if event["event"] == "engine.graph_refused"] == []
    return hear


@pytest.fixture
def exact_float32() -> Iterator[None]:
    """Without the shorter fractions that convolutions have by default."""
    import torch  # noqa: PLC0415

    torch.backends.cudnn.allow_tf32, before = False, torch.backends.cudnn.allow_tf32
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture
def no_waiting() -> Iterator[None]:
    """Whatever makes the host wait for the device raises."""
    import torch  # noqa: PLC0415

    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode(before)


def some_features(hear: "WindowsToWords", samples: int, seed: int) -> "tuple[torch.Tensor, torch.Tensor]":
    rng = np.random.default_rng(seed)
    lengths = rng.integers(samples // 4, samples, BATCH_SIZE, endpoint=True)
    windows = [rng.integers(-8_000, 8_000, length, dtype=np.int16) for length in lengths]
    return hear._padded._features(windows, BATCH_SIZE, samples)


def test_every_bucket_has_its_graph(warm: "WindowsToWords") -> None:
    assert warm._padded._encoder.recorded == {(samples, BATCH_SIZE) for samples in BUCKETS_SAMPLES}


def test_decoding_by_way_of_its_graph_makes_the_same_steps(
    warm: "WindowsToWords", many_windows: tuple[Pcm, ...]
) -> None:
    import torch  # noqa: PLC0415

    from worker.adapters.parakeet.decoding import GreedyTdt  # noqa: PLC0415

    assert warm._decode.is_recorded
    plain = GreedyTdt(warm._network, block_steps=8)
    for bucket in range(len(BUCKETS_SAMPLES)):
        encoded = warm.encode(many_windows[bucket :: len(BUCKETS_SAMPLES)][:BATCH_SIZE])
        with torch.inference_mode(), warm._aside.working():
            rows, lengths = warm._side_by_side([encoded])

            got, expected = warm._decode(rows, lengths), plain(rows, lengths)

        assert all(map(torch.equal, got.columns, expected.columns))


def test_graphs_repeat_the_encoder_to_the_last_bit_in_whatever_order(warm: "WindowsToWords") -> None:
    import torch  # noqa: PLC0415

    rng = np.random.default_rng(1)

    for seed in range(3):
        for samples in rng.permutation(BUCKETS_SAMPLES).tolist():
            with torch.inference_mode():
                features, frames = some_features(warm, samples, seed)

                got = warm._padded._encoder(samples, features, frames)

                assert all(map(torch.equal, got, warm._padded._encoder._encode(features, frames))), samples


@pytest.mark.usefixtures("no_waiting")
def test_windows_are_sent_through_the_encoder_without_waiting_for_it(warm: "WindowsToWords") -> None:
    silence = np.zeros(BUCKETS_SAMPLES[2] - 1, dtype=np.int16)

    encoded = warm.encode([silence] * BATCH_SIZE)

    assert len(encoded.seconds) == BATCH_SIZE


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_tokens_in_short_precision_are_nearly_all_nemos(
    random_weights: Path, many_windows: tuple[Pcm, ...], precision: str
) -> None:
    import torch  # noqa: PLC0415

    agreed = agreement_with_nemo(random_weights, many_windows, device="cuda", dtype=getattr(torch, precision))

    assert agreed.tokens > 2 / MOST_WRONG_IN_SHORT
    assert agreed.wrong_share <= MOST_WRONG_IN_SHORT


@pytest.mark.usefixtures("exact_float32")
def test_tokens_in_float32_are_nemos_one_by_one(random_weights: Path, many_windows: tuple[Pcm, ...]) -> None:
    import torch  # noqa: PLC0415

    agreed = agreement_with_nemo(random_weights, many_windows, device="cuda", dtype=torch.float32)

    assert agreed.tokens
    assert agreed.wrong_tokens == 0
