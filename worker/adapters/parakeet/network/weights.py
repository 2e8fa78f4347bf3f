"""A model's parameters by NeMo's names, and the products of the frames of a pass with them.

Products are taken in blocks of the same number of frames. A library of matrix products chooses its way by the size of
the product, and another way may add up in another order. With every product of one size, what it gives for a frame does
not depend on how many frames the pass has.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

_PARTS = ("preprocessor.", "encoder.", "decoder.", "joint.")
"""Weights outside of these belong to heads that are not used, such as a hybrid model's CTC decoder."""

_UNUSED = "num_batches_tracked"
"""Batch norm's counter, of training."""


class WrongWeights(Exception):
    """The weights are not those of the network that the configuration describes; the message names the parameter."""


class Weights:
    """Parameters to build the network from, in whatever precision they are stored in.

    What the network makes of them is computed on `device`, in float32, and then placed: rounded to `dtype`.
    """

    def __init__(self, tensors: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype) -> None:
        self._tensors, self.device, self.dtype = tensors, device, dtype
        self._taken: set[str] = set()

    def take(self, name: str, *shape: int) -> Tensor:
        """Return a parameter on the device, in float32. Raises `WrongWeights` where it is missing or misshapen."""
        if name not in self._tensors:
            raise WrongWeights(f"the weights lack {name}")
        self._taken.add(name)
        tensor = self._tensors[name]
        if tensor.shape != shape:
            found = tuple(tensor.shape)
            raise WrongWeights(f"{name} is of shape {found}; the configuration asks for {shape}")
        if not tensor.is_floating_point():
            raise WrongWeights(f"{name} is of type {tensor.dtype}, not of floats")
        return tensor.detach().to(self.device).float()  # in one step torch would convert on the CPU, by one thread

    def place(self, tensor: Tensor) -> Tensor:
        """Return the tensor in the network's precision, contiguous."""
        return tensor.to(self.dtype).contiguous()

    def placed(self, name: str, *shape: int) -> Tensor:
        """Return a parameter on the device, in the network's precision. Raises as `take` does."""
        return self.place(self.take(name, *shape))

    def require_all_taken(self) -> None:
        """Raise `WrongWeights` where parts of the network have parameters that nothing has taken."""
        for name in self._tensors:
            if name.startswith(_PARTS) and name not in self._taken and not name.endswith(_UNUSED):
                raise WrongWeights(f"the weights hold {name}, which the configuration does not ask for")


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


def linear_of(
    weights: Weights, name: str, outputs: int, *inputs: int, has_bias: bool = True, scale: float = 1.0
) -> Linear:
    """Return the product with a parameter of NeMo's, times `scale`; a convolution over one place has `inputs`, 1 ..."""
    weight = weights.take(f"{name}.weight", outputs, *inputs).flatten(1)
    bias = weights.take(f"{name}.bias", outputs) if has_bias else None
    if scale != 1.0:  # otherwise a mapped file's pages are not copied
        weight, bias = weight * scale, None if bias is None else bias * scale
    return Linear(weights, weight, bias)
