from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

torch = pytest.importorskip("torch")

from worker.adapters.parakeet.network.cuda import SideStream  # noqa: E402  needs torch

if TYPE_CHECKING:
    from collections.abc import Iterator


class Cuda:
    """All that `SideStream` uses of `torch.cuda`, with a record of who did what."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.did: list[str] = []
        monkeypatch.setattr(torch.cuda, "Stream", lambda *_, **options: Cuda.Stream(self, f"second {options}"))
        monkeypatch.setattr(torch.cuda, "current_stream", lambda _=None: Cuda.Stream(self, "first"))
        monkeypatch.setattr(torch.cuda, "stream", self._entered)

    class Stream:
        def __init__(self, cuda: "Cuda", name: str) -> None:
            self.cuda, self.name = cuda, name

        def wait_stream(self, other: "Cuda.Stream") -> None:
            self.cuda.did.append(f"{self.name}: wait for all of {other.name}")

        def record_event(self) -> str:
            self.cuda.did.append(f"{self.name}: mark")
            return "mark"

        def wait_event(self, event: str) -> None:
            self.cuda.did.append(f"{self.name}: wait for {event}")

    class Tensor:
        def __init__(self, cuda: "Cuda") -> None:
            self.cuda = cuda

        def record_stream(self, stream: "Cuda.Stream") -> None:
            self.cuda.did.append(f"memory: kept for {stream.name}")

    @contextmanager
    def _entered(self, stream: "Cuda.Stream") -> "Iterator[None]":
        self.did.append(f"{stream.name}: begin")
        yield
        self.did.append(f"{stream.name}: end")


def test_on_a_gpu_the_second_stream_waits_for_what_it_takes_and_only_when_it_takes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda = Cuda(monkeypatch)
    side: Any = SideStream(torch.device("cuda"))
    tensors = (Cuda.Tensor(cuda), Cuda.Tensor(cuda))

    given = side.handed_over(tensors)
    with side.working():
        assert list(given) == [tensors]

    second = "second {'priority': -1}"
    assert cuda.did == [
        f"{second}: wait for all of first",  # the weights
        "first: mark",
        f"{second}: begin",
        f"{second}: wait for mark",
        *[f"memory: kept for {second}"] * 2,
        f"{second}: end",
    ]


def test_on_a_cpu_nothing_is_done() -> None:
    side, tensor = SideStream(torch.device("cpu")), torch.ones(1)

    given = side.handed_over((tensor,))
    with side.working():
        assert list(given) == [(tensor,)]
