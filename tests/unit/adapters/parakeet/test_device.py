"""A GPU's settings, as far as they can be seen without one."""

import os
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from worker.adapters.parakeet.network.cuda import open_device  # noqa: E402  needs torch


@pytest.fixture
def memory_shares(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """A GPU of 24 GiB, and the shares of its memory that were set; afterwards torch is as it was."""
    shares: list[float] = []
    properties = SimpleNamespace(total_memory=24 * 2**30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, _: shares.append(share))
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = (
        torch.get_num_threads(),
        torch.backends.cuda.cudnn_sdp_enabled(),
        cudnn.deterministic,
        cudnn.allow_tf32,
        matmul.allow_bf16_reduced_precision_reduction,
        matmul.allow_fp16_reduced_precision_reduction,
    )
    yield shares
    torch.set_num_threads(before[0])
    torch.backends.cuda.enable_cudnn_sdp(before[1])
    cudnn.deterministic, cudnn.allow_tf32 = before[2:4]
    matmul.allow_bf16_reduced_precision_reduction, matmul.allow_fp16_reduced_precision_reduction = before[4:]


def test_a_gpu_repeats_itself_and_float32_is_float32(memory_shares: list[float]) -> None:
    device = open_device("auto", 13.0)

    assert device == torch.device("cuda", 0)
    assert memory_shares == [0.5]  # a GiB is for what torch does not count
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


def test_attention_takes_the_same_kernel_for_every_shape(memory_shares: list[float]) -> None:
    """Torch prefers cuDNN's on Hopper, which depends on the shape and plans each shape anew."""
    del memory_shares

    open_device("cuda", 20.0)

    assert not torch.backends.cuda.cudnn_sdp_enabled()


def test_a_limit_above_the_memory_is_all_of_it(memory_shares: list[float]) -> None:
    open_device("cuda", float("inf"))

    assert memory_shares == [1.0]
