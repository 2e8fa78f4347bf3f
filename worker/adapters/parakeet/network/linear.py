"""Matrix products over the frames of a pass, each in blocks of the same number of frames.

A library of matrix products chooses its way by the size of the product, and another way may add up in another order.
With every product of one size, what it gives for a frame does not depend on how many frames the pass has.
"""

import torch
from torch import Tensor

from worker.adapters.parakeet.network.weights import Weights


class Linear:
    """`x W^T + b` over the rows of `x`, in blocks of at most `block` rows."""

    def __init__(self, weights: Weights, weight: Tensor, bias: Tensor | None = None) -> None:
        self._weight = weights.place(weight).t()
        self._bias = None if bias is None else weights.place(bias)

    def __call__(self, x: Tensor, block: int) -> Tensor:
        """Return the products of rows of shape (rows, inputs): (rows, outputs)."""
        if len(x) <= block:
            return self._of(x)
        products = x.new_empty(len(x), self._weight.shape[1])
        for rows, out in zip(torch.split(x, block), torch.split(products, block), strict=True):
            out.copy_(self._of(rows)) if self._bias is not None else torch.mm(rows, self._weight, out=out)
        return products

    def add_to(self, total: Tensor, x: Tensor, block: int) -> None:
        """Add the products to `total`, of shape (rows, outputs), in place."""
        for rows, out in zip(torch.split(x, block), torch.split(total, block), strict=True):
            out.addmm_(rows, self._weight)
        if self._bias is not None:
            total += self._bias

    def _of(self, x: Tensor) -> Tensor:
        return torch.mm(x, self._weight) if self._bias is None else torch.addmm(self._bias, x, self._weight)
