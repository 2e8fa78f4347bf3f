"""Two faults of CUDA graphs, provoked: one of torch's that must not reach our words, and one of stream priorities.

Run in a process of their own: the first may end it with an illegal memory access.
"""

import gc
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.bare_machine.speed import finish, transcribe_all, windows_of_speech
from worker.adapters.parakeet.loading.model_files import ModelFiles
from worker.adapters.parakeet.network.cuda import CudaCapture, Work
from worker.adapters.parakeet.network.transcriber import Transcriber

_SPLIT_K = (64, 16_384)
"""Sizes of a product that cuBLAS divides along its sum, through a workspace."""

_LARGE, _LARGE_PRODUCTS, _SMALL_KERNELS = 8192, 40, 300
_PASSES = 4


def torch_loses_the_workspace() -> str:
    """Record two graphs on one stream, drop one, reuse the freed memory and repeat the other; return the outcome.

    torch 2.13 frees the cuBLAS workspace that both write to (pytorch issue 193402). This is about torch alone.
    """
    device = torch.device("cuda")
    small, long = _SPLIT_K
    first, second = (torch.randn(small, long, device=device) for _ in range(2))
    stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    pool = torch.cuda.graph_pool_handle()
    graphs, outputs = [], []
    for _ in range(2):
        with torch.cuda.stream(stream):
            first @ second.T
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool, stream):
                outputs.append(first @ second.T)
            graphs.append(graph)
    expected = first @ second.T
    graphs.pop(0)
    gc.collect()
    torch.cuda.empty_cache()
    filler = [torch.full((2**20,), float("nan"), device=device) for _ in range(64)]
    graphs[0].replay()
    finish(device)
    spoiled = any(not bool(torch.isnan(one).all()) for one in filler)
    right = torch.allclose(outputs[1], expected, rtol=1e-3, atol=1e-2)
    return "wrote to memory of others" if spoiled else "right" if right else "wrong numbers"


def ours_without_room_for_graphs(files: ModelFiles, dtype: torch.dtype) -> dict[str, object]:
    """Transcribe with so little memory that recordings are refused and dropped; the words must stay the same."""
    device, windows = torch.device("cuda"), windows_of_speech(64)
    plain = Transcriber(files, device, dtype, graphs=False)
    plain.warm_up()
    expected = [plain.tokens([window]) for window in windows[:16]]
    del plain
    torch.cuda.empty_cache()
    events: list[str] = []

    def report(event: str, /, **_: object) -> None:
        events.append(event)

    total = torch.cuda.get_device_properties(device).total_memory
    transcriber = Transcriber(files, device, dtype, batch_windows=64, report=report)
    transcriber.warm_up()
    for room_gib in (6.0, 3.0, 1.5, 0.75):
        room = torch.cuda.memory_reserved(device) + room_gib * 2**30
        torch.cuda.set_per_process_memory_fraction(min(1.0, room / total), device)
        for _ in range(_PASSES):
            transcribe_all(transcriber, windows)
            while transcriber.idle():
                pass
    equal = [transcriber.tokens([window]) for window in windows[:16]] == expected
    torch.cuda.set_per_process_memory_fraction(1.0, device)
    return {"events": sorted(set(events)), "words_stay_the_same": equal}


def wait_beside_large_products(priority: int) -> float:
    """Return the milliseconds that small kernels of a graph, recorded at a priority, wait beside large products.

    Since torch 2.10 a graph's kernels have the priority of the stream they were recorded on.
    """
    device = torch.device("cuda")
    large = torch.rand(_LARGE, _LARGE, device=device).to(torch.bfloat16)
    small = torch.zeros(1024, device=device)
    repeat = _recorded(priority, small)
    side = torch.cuda.Stream(priority=priority)  # type: ignore[no-untyped-call]
    finish(device)
    for _ in range(_LARGE_PRODUCTS):
        large @ large
    begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    with torch.cuda.stream(side):
        begun.record()
        repeat()
        ended.record()
    finish(device)
    return float(begun.elapsed_time(ended))


def _recorded(priority: int, small: Tensor) -> Callable[[], object]:
    def work() -> tuple[Tensor, ...]:
        for _ in range(_SMALL_KERNELS):
            small.add_(1)
        return (small,)

    repeat: Work = CudaCapture(priority=priority)(work)
    return repeat
