"""CUDA graphs: work on the device that the host repeats at one stroke, where it would launch every kernel of it.

Work that can be recorded is the same for all values: it looks at none, and is told none by the host. It reads and
writes tensors that stay where they are, and whoever repeats it writes its inputs there before, and takes its outputs
away after. No driver newer than CUDA 12.2 is needed: nothing in a graph is conditional.
"""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

Work: TypeAlias = Callable[[], tuple[Tensor, ...]]

Capture: TypeAlias = Callable[[Work], Work]
"""Record the work; the answer repeats it, and its outputs are the same tensors each time.

The work may run some times before it is recorded. Raises RuntimeError, of which `torch.OutOfMemoryError` is one."""


class CudaCapture:
    """Records CUDA graphs on the current device, all in one pool of memory.

    So only one of them may run at a time, and its outputs are to be read before another runs.
    """

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()
        self._broken: torch.cuda.CUDAGraph | None = None

    def __call__(self, work: Work) -> Work:
        """See `Capture`. Before it records it runs twice: libraries prepare themselves at the first call."""
        if self._broken is not None:
            raise RuntimeError("an earlier recording broke off")
        graph = torch.cuda.CUDAGraph()
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):  # which also ends it where the recording breaks off and torch does not
            for _ in range(2):
                work()
            outputs = self._record(graph, work)
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
            # torch's allocator goes on pointing to a graph whose recording was invalid: keep it, and record no other.
            self._broken = graph
            raise
