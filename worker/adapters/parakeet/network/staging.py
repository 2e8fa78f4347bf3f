"""Arrays on their way from the host to the device."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_BUFFERS = 3
"""One is filled, one is copied and one waits, while the device is a pass behind."""


class Staging:
    """Copies arrays of one type to the device through a ring of pinned buffers, which the host does not wait for.

    The device's copies are read on the current stream. `capacity` is in elements.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, capacity: int) -> None:
        self._device, self._pinned = device, device.type == "cuda"
        count = _BUFFERS if self._pinned else 0
        self._buffers = [torch.empty(capacity, dtype=dtype, pin_memory=True) for _ in range(count)]
        self._copied = [torch.cuda.Event() for _ in range(count)]  # type: ignore[no-untyped-call]
        self._next = 0

    def send(self, arrays: Sequence[NDArray[Any]]) -> Tensor:
        """Return the arrays end to end, on the device."""
        if not self._pinned:
            return torch.from_numpy(np.concatenate(arrays))
        buffer, copied = self._buffers[self._next], self._copied[self._next]
        self._next = (self._next + 1) % len(self._buffers)
        copied.synchronize()  # returns at once unless the device is two passes behind
        total = sum(map(len, arrays))
        np.concatenate(arrays, out=buffer[:total].numpy())
        sent = buffer[:total].to(self._device, non_blocking=True)
        copied.record()
        return sent
