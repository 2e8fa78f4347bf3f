"""The kernels of one pass of the encoder, by time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.profiler import ProfilerActivity, profile

from bench.bare_machine.speed import encode_all, finish
from worker.adapters.parakeet.network.transcriber import Transcriber

_KINDS: Mapping[str, Sequence[str]] = {
    "attention": ("flash", "fmha", "attention", "softmax", "sdp"),
    "matrix products": ("gemm", "cutlass", "cublas", "nvjet", "addmm", "aten::mm", "linear", "xmma"),
    "convolutions": ("conv", "cudnn", "dgrad", "winograd"),
    "norms and sums": ("norm", "reduce"),
    "copies": ("copy", "memcpy", "memset", "cat", "index", "gather", "fill"),
}
_MOST_NAMES = 12


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Shares of the time of a pass."""

    milliseconds: float
    kernels: int
    share_by_kind: Mapping[str, float]
    slowest: Sequence[tuple[str, int, float]]
    """Name, calls and share."""
    unaligned: Sequence[str]
    """Kernels of matrix products with odd sizes: slow ones."""


def profile_pass(transcriber: Transcriber, windows: Sequence[NDArray[np.int16]], device: torch.device) -> Profile:
    """Encode the windows once under torch's profiler."""
    on_gpu = device.type == "cuda"
    encode_all(transcriber, windows)
    finish(device)
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as seen:
        encode_all(transcriber, windows)
        finish(device)
    micros: dict[str, tuple[int, float]] = {}
    for event in seen.key_averages():
        spent = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if spent:
            micros[event.key] = (event.count, spent)
    total = sum(spent for _, spent in micros.values()) or 1.0
    by_kind: dict[str, float] = {}
    for name, (_, spent) in micros.items():
        by_kind[kind_of(name)] = by_kind.get(kind_of(name), 0.0) + spent / total
    slowest = sorted(micros.items(), key=lambda item: -item[1][1])[:_MOST_NAMES]
    return Profile(
        milliseconds=total / 1000,
        kernels=sum(count for count, _ in micros.values()),
        share_by_kind=dict(sorted(by_kind.items(), key=lambda item: -item[1])),
        slowest=[(name[:100], count, spent / total) for name, (count, spent) in slowest],
        unaligned=[name[:100] for name in micros if "align1" in name],
    )


def kind_of(name: str) -> str:
    """Return what a kernel does, by its name."""
    lower = name.lower()
    return next((kind for kind, parts in _KINDS.items() if any(part in lower for part in parts)), "elementwise")
