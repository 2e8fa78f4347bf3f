"""CUDA graphs: work that the host launches once and the device repeats, instead of a launch for every kernel.

Work that can be recorded runs the same operations on the same memory whatever the values are: it never reads a value on
the host. Its inputs are written to where they were when it was recorded, and its outputs are read before the next
repeat. Nothing in a graph is conditional, so drivers from CUDA 12.2 on will do.
"""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

Work: TypeAlias = Callable[[], tuple[Tensor, ...]]

Capture: TypeAlias = Callable[[Work], Work]
"""Records work and returns what repeats it; its outputs are the same tensors each time.

The work may run some times before it is recorded. Raises RuntimeError, of which `torch.OutOfMemoryError` is one."""


class CudaCapture:
    """Records CUDA graphs on a stream of its own, all in one pool of memory.

    Only one of the graphs may run at a time, and its outputs are to be read before another runs. A graph's kernels have
    the priority of the stream they were recorded on (since torch 2.10), whatever stream repeats them.

    Every graph lives as long as this object, used or not: torch 2.13 frees the stream's cuBLAS workspace with the first
    graph that is dropped, and the others go on writing to it (pytorch issue 193402). To drop them, drop all of them.
    """

    def __init__(self, *, priority: int = 0) -> None:
        self._stream = torch.cuda.Stream(priority=priority)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()
        self._graphs: list[torch.cuda.CUDAGraph] = []
        self._is_broken = False

    def __call__(self, work: Work) -> Work:
        """See `Capture`. The work runs twice before it is recorded: libraries prepare themselves at the first call."""
        if self._is_broken:
            raise RuntimeError("an earlier recording broke off")
        self._stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(self._stream):  # ends also where a recording breaks off, and torch's does not
                for _ in range(2):
                    work()
                graph = torch.cuda.CUDAGraph()
                self._graphs.append(graph)
                outputs = self._record(graph, work)
        finally:  # also where memory ran out: the caller's stream reuses what the work has read and written
            torch.cuda.current_stream().wait_stream(self._stream)

        def repeat() -> tuple[Tensor, ...]:
            graph.replay()
            return outputs

        return repeat

    def _record(self, graph: torch.cuda.CUDAGraph, work: Work) -> tuple[Tensor, ...]:
        try:
            # Other threads of the process may do what they like meanwhile.
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                return work()
        except torch.OutOfMemoryError:
            raise  # the recording ended in order
        except RuntimeError:
            self._is_broken = True  # torch's allocator goes on pointing to a graph whose recording was invalid
            raise
