"""A second stream of the device, for work that must not wait for what is lined up on the first."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor

_Tensors = TypeVar("_Tensors", bound=tuple[Tensor, ...])


class Aside:
    """On a GPU a stream of high priority: many small kernels then slip in between the large ones of the other stream.

    On a CPU there is one order of things, and this is transparent.
    """

    def __init__(self, device: torch.device) -> None:
        on_gpu = device.type == "cuda"
        self._stream = torch.cuda.Stream(device, priority=-1) if on_gpu else None  # type: ignore[no-untyped-call]

    def working(self) -> AbstractContextManager[object]:
        """What is done inside is lined up here, and waits for nothing but what it hands over to itself."""
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def handed_over(self, tensors: _Tensors) -> Iterator[_Tensors]:
        """Just these tensors of the current stream, to be taken inside `working`.

        What is done there from then on waits until they are made; the host does not. Their memory is given to nobody
        before it is done with them.
        """
        if self._stream is None:
            return iter((tensors,))
        return _taken(tensors, self._stream, torch.cuda.current_stream().record_event())


def _taken(tensors: _Tensors, stream: torch.cuda.Stream, made: torch.cuda.Event) -> Iterator[_Tensors]:
    stream.wait_event(made)
    for tensor in tensors:
        tensor.record_stream(stream)
    yield tensors
