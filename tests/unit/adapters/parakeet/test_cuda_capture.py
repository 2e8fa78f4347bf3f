import gc
import inspect
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import pytest

torch = pytest.importorskip("torch")

from worker.adapters.parakeet.network.cuda import CudaCapture  # noqa: E402  needs torch

if TYPE_CHECKING:
    from torch import Tensor


def doubled(one: "Tensor", other: "Tensor") -> "tuple[Tensor, Tensor]":
    return one * 2, other * 2


class Cuda:
    """All that `CudaCapture` uses of `torch.cuda`, called as torch has it; a graph repeats what `work` recorded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.graph: Cuda.Graph | None = None
        self.warm_ups = 0
        self.inputs = (torch.tensor([1.0]), torch.tensor([2]))
        self.asked: list[dict[str, Any]] = []
        self.trouble: RuntimeError | None = None
        self._patch = monkeypatch
        self.streams: list[Cuda.Stream] = []
        self.graphs: list[weakref.ref[Cuda.Graph]] = []
        self._stand_in("Stream", self._new_stream)
        self.current = Cuda.Stream()
        self._stand_in("current_stream", lambda: self.current)
        self._stand_in("CUDAGraph", self._new_graph)
        self._stand_in("graph_pool_handle", object)
        self._stand_in("stream", nullcontext)
        self._stand_in("graph", self._capturing)

    class Stream:
        def __init__(self, priority: int = 0) -> None:
            self.priority = priority
            self.waited_for: list[Cuda.Stream] = []

        def wait_stream(self, stream: "Cuda.Stream") -> None:
            self.waited_for.append(stream)

    class Graph:
        replay: Callable[[], object]

    def _new_stream(self, priority: int = 0) -> "Cuda.Stream":
        self.streams.append(Cuda.Stream(priority))
        return self.streams[-1]

    def _new_graph(self) -> "Cuda.Graph":
        graph = Cuda.Graph()
        self.graphs.append(weakref.ref(graph))
        return graph

    def forget(self) -> None:
        """Keep nothing of what was recorded."""
        self.asked.clear()

    def work(self) -> "tuple[Tensor, Tensor]":
        """Count the values of `inputs` twice over."""
        outputs = doubled(*self.inputs)
        if self.graph is None:
            self.warm_ups += 1
            return outputs
        if self.trouble is not None:
            raise self.trouble
        self.graph.replay = lambda: [mine.copy_(new) for mine, new in zip(outputs, doubled(*self.inputs), strict=True)]
        return outputs

    def _stand_in(self, name: str, mine: Callable[..., Any]) -> None:
        signature = inspect.signature(getattr(torch.cuda, name))

        def called(*args: Any, **kwargs: Any) -> Any:
            signature.bind(*args, **kwargs)
            return mine(*args, **kwargs)

        self._patch.setattr(torch.cuda, name, called)

    @contextmanager
    def _capturing(self, graph: Graph, pool: object, stream: Stream, **options: Any) -> Iterator[None]:
        self.asked.append({"pool": pool, "stream": stream, **options})
        self.graph = graph
        try:
            yield
        finally:
            self.graph = None


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    return Cuda(monkeypatch)


def test_a_graph_takes_its_inputs_where_they_lie_and_leaves_its_outputs_where_they_were(cuda: Cuda) -> None:
    repeat = CudaCapture()(cuda.work)
    first = repeat()

    for value in (5, 6):
        for tensor in cuda.inputs:
            tensor.fill_(value)
        outputs = repeat()

        assert [float(output) for output in outputs] == [2 * value, 2 * value]
        assert all(now is before for now, before in zip(outputs, first, strict=True))


def test_libraries_are_warm_before_a_graph_is_recorded(cuda: Cuda) -> None:
    CudaCapture()(cuda.work)

    assert cuda.warm_ups == 2


def test_graphs_share_their_memory_and_leave_other_threads_alone(cuda: Cuda) -> None:
    capture = CudaCapture()

    for _ in range(2):
        capture(cuda.work)

    first, second = cuda.asked
    assert first == second
    assert first["capture_error_mode"] == "thread_local"


def test_a_recording_that_breaks_off_is_the_last(cuda: Cuda) -> None:
    capture = CudaCapture()
    cuda.trouble = RuntimeError("operation not permitted when stream is capturing")
    with pytest.raises(RuntimeError, match="not permitted"):
        capture(cuda.work)
    cuda.trouble = None

    with pytest.raises(RuntimeError, match="an earlier recording broke off"):
        capture(cuda.work)


def test_a_recording_without_memory_leaves_another_its_chance(cuda: Cuda) -> None:
    capture = CudaCapture()
    cuda.trouble = torch.OutOfMemoryError()
    with pytest.raises(torch.OutOfMemoryError):
        capture(cuda.work)
    cuda.trouble = None

    repeat = capture(cuda.work)

    assert [float(output) for output in repeat()] == [2.0, 4.0]


def test_the_callers_stream_waits_for_a_recording_that_fails_too(cuda: Cuda) -> None:
    """It reuses the memory of the work's tensors, which the first runs may still write to."""
    capture = CudaCapture()
    for trouble in (torch.OutOfMemoryError(), RuntimeError("not permitted")):
        cuda.trouble = trouble
        with pytest.raises(RuntimeError):
            capture(cuda.work)

    assert cuda.current.waited_for == cuda.streams * 2


def test_a_graph_has_the_priority_of_the_stream_that_it_is_recorded_on(cuda: Cuda) -> None:
    CudaCapture(priority=-1)(cuda.work)

    assert [stream.priority for stream in cuda.streams if stream.priority] == [-1]
    assert cuda.asked[0]["stream"].priority == -1


def test_no_graph_is_dropped_before_all_of_them_not_even_one_whose_recording_failed(cuda: Cuda) -> None:
    """Dropping one frees the stream's cuBLAS workspace, to which the others go on writing."""
    capture = CudaCapture()
    repeat = capture(cuda.work)
    cuda.trouble = torch.OutOfMemoryError()
    with pytest.raises(torch.OutOfMemoryError):
        capture(cuda.work)
    cuda.trouble = None

    gc.collect()
    assert [graph() is None for graph in cuda.graphs] == [False, False]
    repeat()
    del capture, repeat
    cuda.forget()
    gc.collect()

    assert [graph() is None for graph in cuda.graphs] == [True, True]
