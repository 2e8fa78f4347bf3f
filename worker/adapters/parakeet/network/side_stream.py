"""A second stream of the device, for work that must not wait for what is queued on the first."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor

HIGH_PRIORITY = -1

_Tensors = TypeVar("_Tensors", bound=tuple[Tensor, ...])


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
