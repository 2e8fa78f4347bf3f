"""The bench for a bare GPU machine, as far as it can be tested without one."""

import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from bench.bare_machine.kernels import kind_of  # noqa: E402  needs torch
from bench.bare_machine.parts import share_equal  # noqa: E402
from bench.bare_machine.random_model import random_weights, raw_config  # noqa: E402
from bench.bare_machine.speed import batches, encoder_flops, seconds_of, windows_of_speech  # noqa: E402
from worker.adapters.parakeet.frames import PassPlan  # noqa: E402
from worker.adapters.parakeet.network.config import network_config  # noqa: E402
from worker.adapters.parakeet.network.passes import Parts  # noqa: E402
from worker.adapters.parakeet.network.weights import Weights  # noqa: E402

ROOT = Path(__file__).parents[3]
ABSENT = {
    "structlog",
    "opentelemetry",
    "pydantic",
    "typer",
    "rich",
    "nemo",
    "transformers",
    "google",
    "httpx",
    "psutil",
}
"""Packages that a bare machine does not have."""


def test_it_imports_nothing_that_a_bare_machine_lacks() -> None:
    check = f"import sys, bench.gpu; sys.exit(' '.join({ABSENT} & {{name.partition('.')[0] for name in sys.modules}}))"

    ended = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=False)

    assert ended.stderr.strip() == ""


def test_the_arithmetic_of_the_real_encoder_is_15_7_gflop_an_audio_second() -> None:
    config = network_config(raw_config(["a"] * 1024, layers=24))

    a_second = encoder_flops(config, 30 * 16_000) / 30

    assert a_second / 1e9 == pytest.approx(15.66, abs=0.02)


def test_random_weights_are_those_that_the_configuration_asks_for() -> None:
    config = network_config(raw_config(["a"] * 1024, layers=1))

    weights = random_weights(config)

    Parts.of(config, Weights(weights, torch.device("meta"), torch.float32))  # raises where they are others
    assert all(torch.isfinite(one).all() for one in weights.values())


def test_windows_go_into_batches_each_once_and_the_last_is_marked() -> None:
    windows = windows_of_speech(9)
    plan = PassPlan(capacity=1536, most_windows=32, sizes=(512, 1536))

    planned = list(batches(windows, plan))

    assert sorted(id(one) for batch in planned for one in batch.windows) == sorted(map(id, windows))
    assert [batch.is_last for batch in planned] == [False] * (len(planned) - 1) + [True]
    assert 9 * 18 < seconds_of(windows) < 9 * 30


def test_the_share_of_equal_tokens_counts_what_is_missing_and_what_is_too_much() -> None:
    assert share_equal([["a", "b", "c"]], [["a", "b", "c"]]) == 1.0
    assert share_equal([["a", "c"], ["d"]], [["a", "b", "c"], ["d", "e"]]) == 3 / 5


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("sm89_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128", "matrix products"),
        ("pytorch_flash::flash_fwd_kernel", "attention"),
        ("void at::native::vectorized_elementwise_kernel<4, silu>", "elementwise"),
        ("void at::native::(anonymous namespace)::vectorized_layer_norm_kernel", "norms and sums"),
        ("Memcpy DtoD (Device -> Device)", "copies"),
    ],
)
def test_a_kernel_belongs_to_a_kind_by_its_name(kernel: str, kind: str) -> None:
    assert kind_of(kernel) == kind
