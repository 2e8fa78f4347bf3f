import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import pytest

torch = pytest.importorskip("torch")

from worker.adapters.parakeet.graphs import CudaCapture  # noqa: E402  needs torch

if TYPE_CHECKING:
    from torch import Tensor

SHORT, LONG = 8, 64


def encode(features: "Tensor", frames: "Tensor") -> "tuple[Tensor, Tensor]":
    return features * frames[:, None, None] + 1, frames // 2


class Cuda:
    """What `CudaCapture` uses of `torch.cuda`, called as torch has it; a graph repeats what `work` recorded in it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.graph: Cuda.Graph | None = None
        self.warm_ups = 0
        self.asked: list[dict[str, Any]] = []
        self.trouble: RuntimeError | None = None
        self._patch = monkeypatch
        self._stand_in("Stream", Cuda.Stream)
        self._stand_in("current_stream", Cuda.Stream)
        self._stand_in("CUDAGraph", Cuda.Graph)
        self._stand_in("graph_pool_handle", object)
        self._stand_in("stream", nullcontext)
        self._stand_in("graph", self._capturing)

    class Stream:
        def wait_stream(self, stream: "Cuda.Stream") -> None: ...

    class Graph:
        replay: Callable[[], object]

    def work(self, features: "Tensor", frames: "Tensor") -> "tuple[Tensor, Tensor]":
        encoded, lengths = encode(features, frames)
        if self.graph is None:
            self.warm_ups += 1
            return encoded, lengths
        if self.trouble is not None:
            raise self.trouble
        self.graph.replay = lambda: [
            mine.copy_(new) for mine, new in zip((encoded, lengths), encode(features, frames), strict=True)
        ]
        return encoded, lengths

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


def values(frames: int) -> "tuple[Tensor, Tensor]":
    return torch.rand(2, 3, frames, generator=torch.Generator().manual_seed(frames)), torch.tensor([frames, 1])


def test_a_graph_takes_every_input_anew_and_gives_its_answers_away(cuda: Cuda) -> None:
    repeat = CudaCapture()(cuda.work, *values(SHORT))
    features, frames = (new + 1 for new in values(SHORT))

    first = repeat(features, frames)
    second = repeat(features + 1, frames - 1)

    assert all(map(torch.equal, first, encode(features, frames)))
    assert all(map(torch.equal, second, encode(features + 1, frames - 1)))


def test_libraries_are_warm_before_a_graph_is_recorded(cuda: Cuda) -> None:
    CudaCapture()(cuda.work, *values(SHORT))

    assert cuda.warm_ups == 2


def test_graphs_share_their_memory_and_leave_other_threads_alone(cuda: Cuda) -> None:
    capture = CudaCapture()

    for frames in (LONG, SHORT):
        capture(cuda.work, *values(frames))

    first, second = cuda.asked
    assert first == second
    assert first["capture_error_mode"] == "thread_local"


def test_a_recording_that_breaks_off_is_the_last(cuda: Cuda) -> None:
    capture = CudaCapture()
    cuda.trouble = RuntimeError("operation not permitted when stream is capturing")
    with pytest.raises(RuntimeError, match="not permitted"):
        capture(cuda.work, *values(LONG))
    cuda.trouble = None

    with pytest.raises(RuntimeError, match="an earlier recording broke off"):
        capture(cuda.work, *values(SHORT))


def test_a_recording_without_memory_leaves_a_shorter_one_its_chance(cuda: Cuda) -> None:
    capture = CudaCapture()
    cuda.trouble = torch.OutOfMemoryError()
    with pytest.raises(torch.OutOfMemoryError):
        capture(cuda.work, *values(LONG))
    cuda.trouble = None
    features, frames = (new + 1 for new in values(SHORT))

    repeat = capture(cuda.work, *values(SHORT))

    assert all(map(torch.equal, repeat(features, frames), encode(features, frames)))
