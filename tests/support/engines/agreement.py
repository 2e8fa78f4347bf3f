"""The network's tokens against NeMo's own greedy decoding of the same windows: same weights, device and precision."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.parakeet.results import Agreement, ComparisonPlan, agreement
from worker.ports import Pcm

if TYPE_CHECKING:
    import torch

BATCH_SIZE = 8
MEMORY_LIMIT_GIB = 20


def agreement_with_nemo(weights: Path, windows: Sequence[Pcm], *, device: str, dtype: "torch.dtype") -> Agreement:
    """Ours packed as in the worker; NeMo's with one window at a time, whatever its length."""
    from bench.parakeet.comparison import Loaded, Ours, untouched  # noqa: PLC0415  NeMo: 10 s
    from bench.parakeet.nemo import Nemo  # noqa: PLC0415

    plan = plan_of(weights, device)
    loaded = replace(Loaded.of(plan), dtype=dtype)
    ours = Ours(loaded, plan).tokens(windows)
    nemo = Nemo(untouched(plan, loaded.device))
    nemo.with_times(False)
    nemo.in_precision(dtype)
    return agreement(ours, nemo.windows(windows, 1))


def plan_of(weights: Path, device: str) -> ComparisonPlan:
    """One thread, one repeat."""
    return ComparisonPlan(
        weights=str(weights),
        device=device,
        batch_size=BATCH_SIZE,
        threads=1,
        nemo_batch_sizes=(),
        memory_limit_gib=MEMORY_LIMIT_GIB,
        gpu_precision="bfloat16",
        gpu_graphs=True,
        repeats=1,
    )
