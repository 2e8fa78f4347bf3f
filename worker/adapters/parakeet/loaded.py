"""What the stages of inference share: the model as it was loaded, and who looks at the clock."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedModel:
    """A frozen NeMo transducer on its device; `dtype` is that of its encoder, decoder and joint."""

    network: Any
    device: torch.device
    dtype: torch.dtype

    @property
    def on_gpu(self) -> bool:
        """The device is not the host's own, and works while the host goes on."""
        return self.device.type == "cuda"


Lap: TypeAlias = Callable[[str], None]
"""Told of each stage when the host is done with it: mel, encoder, decoding, words."""


def no_lap(stage: str) -> None:
    """Nobody looks at the clock."""
