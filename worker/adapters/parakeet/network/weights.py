"""A model's parameters by NeMo's names, checked against the shapes that the configuration asks for."""

from collections.abc import Mapping

import torch
from torch import Tensor


class WrongWeights(Exception):
    """The weights are not those of the network that the configuration describes; the message names the parameter."""


class Weights:
    """Parameters to build the network from, in whatever precision they are stored in.

    What the network makes of them is computed on `device`, in float32, and then placed: rounded to `dtype`.
    """

    def __init__(self, tensors: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype) -> None:
        self._tensors, self.device, self.dtype = tensors, device, dtype

    def take(self, name: str, *shape: int) -> Tensor:
        """Return a parameter on the device, in float32. Raises `WrongWeights` where it is missing or misshapen."""
        if name not in self._tensors:
            raise WrongWeights(f"the weights lack {name}")
        tensor = self._tensors[name]
        if tuple(tensor.shape) != shape or not tensor.is_floating_point():
            found = f"{tuple(tensor.shape)} of {tensor.dtype}"
            raise WrongWeights(f"{name} is {found}; the configuration asks for {shape} of floating-point numbers")
        return tensor.detach().to(self.device).float()  # in one step torch would convert on the CPU, by one thread

    def place(self, tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Return the tensor on the device in the network's precision, or in `dtype`, contiguous."""
        return tensor.to(self.device, dtype or self.dtype).contiguous()
