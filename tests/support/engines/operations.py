"""The operations that torch runs, seen one by one."""

from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Watching(TorchDispatchMode):
    """Sees every operation: how often each ran, and which met a tensor with values."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: Counter[str] = Counter()
        self.met_values: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.ran[str(func)] += 1
        if not all(leaf.is_meta for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)):
            self.met_values.add(str(func))
        return result


class Products(TorchDispatchMode):
    """Notes the shapes and strides of the matrices that are multiplied."""

    def __init__(self) -> None:
        super().__init__()
        self.matrices: list[tuple[int, ...]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func.overloadpacket in {torch.ops.aten.mm, torch.ops.aten.bmm, torch.ops.aten.addmm, torch.ops.aten.addmm_}:
            matrices = [one for one in args if isinstance(one, torch.Tensor) and one.dim() > 1]
            self.matrices += [(*one.shape[-2:], *one.stride()[-2:]) for one in matrices]
        return func(*args, **(kwargs or {}))
