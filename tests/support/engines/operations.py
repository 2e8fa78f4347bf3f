"""What torch is told to do, seen operation by operation."""

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
