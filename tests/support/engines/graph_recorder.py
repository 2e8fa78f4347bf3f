"""A CUDA graph without a GPU: operations are recorded once, and repeated on the same tensors."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from worker.adapters.parakeet.network.cuda import Work

WAITS_FOR_THE_DEVICE = frozenset(
    f"aten.{name}.default" for name in ("_local_scalar_dense", "equal", "is_nonzero", "item", "nonzero")
)


class Recorder:
    """A `Capture` as strict as a graph: repeats ignore new values from the host.

    `full` makes repeats run out of memory.
    """

    def __init__(self) -> None:
        self.recorded = self.repeated = 0
        self.full = False

    def __call__(self, work: Work) -> Work:
        for _ in range(2):  # as before a graph: it may not matter
            work()
        with _Noting() as noting:
            outputs = work()
        self.recorded += 1

        def repeat() -> tuple[Tensor, ...]:
            if self.full:
                raise torch.OutOfMemoryError
            self.repeated += 1
            noting.repeat()
            return outputs

        return repeat


class _Noting(TorchDispatchMode):
    """Notes every operation with the tensors that it read and made."""

    def __init__(self) -> None:
        super().__init__()
        self._noted: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Tensor]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if str(func) in WAITS_FOR_THE_DEVICE:
            raise RuntimeError(f"{func}: operation not permitted when stream is capturing")
        made = func(*args, **(kwargs or {}))
        self._noted.append((func, args, kwargs or {}, _tensors(made)))
        return made

    def repeat(self) -> None:
        for func, args, kwargs, made in self._noted:
            for mine, new in zip(made, _tensors(func(*args, **kwargs)), strict=True):
                if mine.data_ptr() != new.data_ptr():  # neither a view nor done in place
                    mine.copy_(new)


def _tensors(results: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(results) if isinstance(leaf, Tensor)]
