"""CUDA as the network uses it: the device, graphs, a second stream, and copies that the host does not wait for.

A graph is work that the host launches once and the device repeats, instead of a launch for every kernel. Work that can
be recorded runs the same operations on the same memory whatever the values are: it never reads a value on the host. Its
inputs are written to where they were when it was recorded, and its outputs are read before the next repeat. Nothing in
a graph is conditional, so drivers from CUDA 12.2 on will do.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.adapters.parakeet.network.layout import PassShape
from worker.errors import GpuNotAvailable

CUDA_CONTEXT_GIB = 1.0
"""GPU memory of the process outside torch, which torch's limit does not include."""

Work: TypeAlias = Callable[[], tuple[Tensor, ...]]

Capture: TypeAlias = Callable[[Work], Work]
"""Records work and returns what repeats it; its outputs are the same tensors each time.

The work may run some times before it is recorded. Raises RuntimeError, of which `torch.OutOfMemoryError` is one."""

HIGH_PRIORITY = -1

_BUFFERS = 3
"""One is filled, one is copied and one waits, while the device is a pass behind."""

_Tensors = TypeVar("_Tensors", bound=tuple[Tensor, ...])


def open_device(name: str, memory_limit_gib: float) -> torch.device:
    """Return the device: cuda, cpu, or with auto cuda where there is a GPU. Raises `GpuNotAvailable`.

    It is set up so that it repeats itself and keeps within its memory.
    """
    torch.set_num_threads(1)  # windows are encoded side by side, each by one thread
    has_gpu = torch.cuda.is_available()
    if name == "cpu" or (name == "auto" and not has_gpu):
        return torch.device("cpu")
    if not has_gpu:
        reason = f"CUDA finds no device: {_driver()}, torch is built for CUDA {torch.version.cuda}"
        raise GpuNotAvailable(f"{reason}; PARAKEET_DEVICE=cpu runs without one, slowly")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS then repeats itself bit for bit
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False  # convolutions in float32 would be rounded to 10 bits
    # Torch prefers it on Hopper and Blackwell, where it chooses a kernel by shape, so that a window's last bits would
    # depend on its pass, and builds a plan of 0.04 to 0.4 s for every shape.
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    total_gib = torch.cuda.get_device_properties(0).total_memory / 2**30
    torch.cuda.set_per_process_memory_fraction(min(1.0, (memory_limit_gib - CUDA_CONTEXT_GIB) / total_gib), 0)
    return torch.device("cuda", 0)


def _driver() -> str:
    """Return the NVIDIA driver's version in words."""
    try:
        import pynvml  # noqa: PLC0415  for this message alone
    except ImportError:
        return "the driver's version is unknown"
    try:
        pynvml.nvmlInit()
        return f"the driver is {pynvml.nvmlSystemGetDriverVersion()}"
    except pynvml.NVMLError as error:
        return f"there is no NVIDIA driver ({error})"


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


class SideStream:
    """On a GPU a stream of high priority: its many small kernels run between the large ones of the other stream.

    On a CPU operations run in the order of the calls, and this class does nothing.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device, priority=HIGH_PRIORITY)  # type: ignore[no-untyped-call]
            self._stream.wait_stream(torch.cuda.current_stream(device))  # there weights may still be on their way

    def working(self) -> AbstractContextManager[object]:
        """Return a context in which operations are queued on this stream; they wait only for tensors handed over."""
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def handed_over(self, tensors: _Tensors) -> Iterator[_Tensors]:
        """Yield these tensors of the current stream once, to be taken inside `working`.

        Operations queued there from then on wait until the tensors are computed; the host does not. Their memory is not
        reused before those operations are done.
        """
        if self._stream is None:
            return iter((tensors,))
        return _taken(tensors, self._stream, torch.cuda.current_stream().record_event())


def _taken(tensors: _Tensors, stream: torch.cuda.Stream, computed: torch.cuda.Event) -> Iterator[_Tensors]:
    stream.wait_event(computed)
    for tensor in tensors:
        tensor.record_stream(stream)
    yield tensors


class Staging:
    """Copies arrays of one type to the device through a ring of pinned buffers, which the host does not wait for.

    The device's copies are read on the current stream. `capacity` is in elements.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, capacity: int) -> None:
        self._device, self._pinned = device, device.type == "cuda"
        count = _BUFFERS if self._pinned else 0
        self._buffers = [torch.empty(capacity, dtype=dtype, pin_memory=True) for _ in range(count)]
        self._copied = [torch.cuda.Event() for _ in range(count)]  # type: ignore[no-untyped-call]
        self._next = 0

    def send(self, arrays: Sequence[NDArray[Any]]) -> Tensor:
        """Return the arrays end to end, on the device."""
        if not self._pinned:
            return torch.from_numpy(np.concatenate(arrays))
        buffer, copied = self._buffers[self._next], self._copied[self._next]
        self._next = (self._next + 1) % len(self._buffers)
        copied.synchronize()  # returns at once unless the device is two passes behind
        total = sum(map(len, arrays))
        np.concatenate(arrays, out=buffer[:total].numpy())
        sent = buffer[:total].to(self._device, non_blocking=True)
        copied.record()
        return sent


RunPass: TypeAlias = Callable[[PassShape, Tensor, Tensor], Tensor]
"""Runs a pass of the shape: features, (spectrogram rows, bands), and a plan to projected frames, (frames, joint)."""

Report: TypeAlias = Callable[..., object]
"""Receives an event with its fields, as structlog's loggers do."""

BUSY_PASSES = 32
"""Passes of a shape after which its recording is made although windows are waiting."""


def ignore(event: str, /, **fields: object) -> None:
    """Receive an event and do nothing."""


class RecordedPasses:
    """Passes as CUDA graphs, one for each shape of pass that occurs; otherwise run by `run_pass` itself.

    Recordings are made one at a time, when `record_pending` is called, so that a start does not wait for them. They are
    dropped all together (see `CudaCapture`): where one leaves no room for a pass that is not recorded, and where memory
    runs out. Shapes of as many frames are not recorded again then. One caller at a time.
    """

    def __init__(
        self,
        run_pass: RunPass,
        new_inputs: Callable[[PassShape], tuple[Tensor, Tensor]],
        new_capture: Callable[[], Capture],
        leaves_room: Callable[[], bool],
        report: Report,
    ) -> None:
        self._run_pass, self._new_inputs, self._new_capture = run_pass, new_inputs, new_capture
        self._leaves_room, self._report = leaves_room, report
        self._capture: Capture | None = None
        self._recordings: dict[PassShape, RunPass] = {}
        self._pending: Counter[PassShape] = Counter()
        self._refused: set[PassShape] = set()
        self._frames_refused: int | None = None

    @property
    def recorded(self) -> frozenset[PassShape]:
        """The shapes that are repeated from a recording."""
        return frozenset(self._recordings)

    @torch.inference_mode()
    def __call__(self, shape: PassShape, features: Tensor, plan: Tensor) -> Tensor:
        """See `RunPass`."""
        if recording := self._recordings.get(shape):
            return recording(shape, features, plan)
        if self._may_record(shape):
            self._pending[shape] += 1
            if self._pending[shape] >= BUSY_PASSES:
                self._record(shape)
        return self._run_pass(shape, features, plan)

    def record_pending(self) -> bool:
        """Record the shape that occurred most of those that are not recorded. Returns False where there is none."""
        if not self._pending:
            return False
        self._record(self._pending.most_common(1)[0][0])
        return True

    def forget(self) -> None:
        """Drop all recordings: their memory is needed for more than speed."""
        if self._recordings:
            self._report("engine.graphs_forgotten", graphs=len(self._recordings))
            self._refuse_from(max(shape.frames for shape in self._recordings))
        self._recordings.clear()
        self._capture = None

    def _may_record(self, shape: PassShape) -> bool:
        return shape not in self._refused and (self._frames_refused is None or shape.frames < self._frames_refused)

    @torch.inference_mode()
    def _record(self, shape: PassShape) -> None:
        del self._pending[shape]
        self._capture = self._capture or self._new_capture()
        try:
            self._recordings[shape] = _recorded(self._run_pass, shape, self._new_inputs(shape), self._capture)
            reason = "" if self._leaves_room() else "it leaves too little memory"
        except torch.OutOfMemoryError as exc:
            reason = str(exc) or "out of memory"
            self._recordings.setdefault(shape, self._run_pass)  # so that `forget` drops what it holds
        except RuntimeError as exc:
            self._refused.add(shape)
            self._report("engine.graph_refused", frames=shape.frames, reason=str(exc))
            return
        if reason:
            self._report("engine.graph_refused", frames=shape.frames, reason=reason)
            self.forget()
            self._refuse_from(shape.frames)

    def _refuse_from(self, frames: int) -> None:
        self._frames_refused = min(frames, self._frames_refused or frames)
        self._pending = Counter({shape: count for shape, count in self._pending.items() if self._may_record(shape)})


def _recorded(run_pass: RunPass, shape: PassShape, inputs: tuple[Tensor, Tensor], capture: Capture) -> RunPass:
    """Return a recording of the pass, which reads these inputs from now on."""
    repeat = capture(lambda: (run_pass(shape, *inputs),))

    def replay(_: PassShape, features: Tensor, plan: Tensor) -> Tensor:
        for mine, new in zip(inputs, (features, plan), strict=True):
            mine.copy_(new)
        return repeat()[0].clone()  # the next repeat overwrites it

    return replay
