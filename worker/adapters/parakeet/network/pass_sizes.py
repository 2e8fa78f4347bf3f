"""Sizes of passes on a GPU: from its processors, from its free memory, and from what has fitted into it."""

import torch

from worker.adapters.parakeet.frames import WINDOW_FRAMES
from worker.adapters.parakeet.network.config import NetworkConfig
from worker.adapters.parakeet.network.layout import PassSizes

_TILE = 128
"""Rows and columns of a product that one of the GPU's processors computes at once."""

_LEAST_BLOCK, _LARGEST_BLOCK = 512, 2048
_MOST_BLOCKS = 4
_USABLE = 0.9
"""The share of the free memory that passes may take; the rest is for what the allocator cannot use of its blocks."""

FIRST_PATIENCE, LONGEST_PATIENCE = 64, 4096
"""Passes that must have fitted before a larger size is tried again; doubled by each try that fails, up to the longest.

64 passes are seconds on a GPU, 4,096 are minutes: a failed try costs one pass."""


def pass_sizes(config: NetworkConfig, processors: int, most_windows: int | None) -> PassSizes:
    """Return the sizes of passes for a GPU with that number of multiprocessors; `most_windows` of 30 s bound them.

    A block has as many frames as give every processor a tile of a product as wide as the model: on an L4, with 58, that
    is 896 for a width of 1,024, and on an H100 2,048. Passes are of one, two or four blocks.
    """
    block = _TILE * (processors // -(-config.d_model // _TILE))
    block = min(max(block, _LEAST_BLOCK), _LARGEST_BLOCK)
    blocks = _MOST_BLOCKS
    if most_windows is not None:
        most_frames = max(most_windows * WINDOW_FRAMES, _LEAST_BLOCK)
        block = min(block, most_frames // _TILE * _TILE)
        blocks = min(blocks, most_frames // block)
    return PassSizes(
        block=block,
        blocks=tuple(sorted({1, min(2, blocks), blocks})),
        gap=config.conv_kernel // 2,
        factor=config.subsampling_factor,
    )


def blocks_within(free: float, block_bytes: float, most: int) -> int:
    """Return how many blocks a pass may have in the memory that is free, at least one, at most `most`."""
    return max(1, min(most, int(free * _USABLE // max(block_bytes, 1))))


def free_bytes(device: torch.device) -> float:
    """Return the memory below the cap that `set_per_process_memory_fraction` has set; what graphs hold is not free."""
    torch.cuda.empty_cache()
    share = torch.cuda.get_per_process_memory_fraction(device)
    return share * torch.cuda.get_device_properties(device).total_memory - torch.cuda.memory_reserved(device)


class PassLimit:
    """The most blocks in a pass, between 1 and `most`: halved when memory runs out, doubled again after a while.

    One caller at a time.
    """

    def __init__(self, most: int) -> None:
        self._most = self._blocks = most
        self._fitted = 0
        self._is_try = False
        self._patience = FIRST_PATIENCE

    @property
    def blocks(self) -> int:
        """The limit for the next pass."""
        return self._blocks

    def set_most(self, most: int) -> None:
        """Never exceed `most` from now on."""
        self._most = self._blocks = max(1, most)

    def fitted(self) -> None:
        """Note that a pass fitted into memory."""
        self._fitted += 1
        if self._blocks < self._most and self._fitted >= self._patience:
            self._blocks, self._fitted, self._is_try = min(self._most, 2 * self._blocks), 0, True

    def shrink(self) -> bool:
        """Halve the limit after memory ran out. Returns False where it was 1 already."""
        if self._blocks == 1:
            return False
        if self._fitted:
            self._patience = FIRST_PATIENCE
        elif self._is_try:  # the memory has not come back: wait longer before the next try
            self._patience = min(2 * self._patience, LONGEST_PATIENCE)
        self._blocks, self._fitted, self._is_try = self._blocks // 2, 0, False
        return True
