"""The layout of a pass: places of its windows, and the index tensors by which the network keeps them apart.

A lone window fills its pass: nothing has to be kept apart. Otherwise windows are placed end to end in a pass of a fixed
number of frames, with a gap after each of them as long as half a convolution's kernel:

- Subsampling: the rows beside a window are set to zero before each strided convolution.
- Depthwise convolution: the gaps are set to zero before it.
- Attention: each window is gathered into a slot of its own, and what its slot has too many is masked.

All of it is data: passes of one `PassShape` run the same operations, whatever windows they hold.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SLOT_FRAMES = (128, 384, 512)
"""10.24, 30.72 and 40.96 s: windows are cut at 30 s, and none is longer than 40 s. Few, so that few shapes occur.
Attention in another size of slot may change a frame's last bits (on some CPUs 2e-5 between 384 and 512), not words."""

_LARGEST_GRID = 4
"""Places in all slots for each frame of the pass: bounds the memory of attention where lengths are mixed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PassShape:
    """The sizes that the operations of a pass of several windows depend on."""

    frames: int
    """Encoder frames: a multiple of `block`."""
    block: int
    """Frames that products and convolutions take at once."""
    slots: int
    """The most windows."""
    slot_frames: int
    """No window is longer."""
    gap: int
    """Frames after each window that belong to no window."""
    factor: int
    """Spectrogram frames of an encoder frame."""

    @property
    def levels(self) -> int:
        """Strided convolutions after the first."""
        return self.factor.bit_length() - 2

    @property
    def blocks(self) -> int:
        """Blocks in the pass."""
        return self.frames // self.block

    def _parts(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the index tensors: edges, gaps, slot frames, lengths, places."""
        edges = (self.blocks, self.levels, 2 * self.slots)
        return edges, (self.gap * self.slots,), (self.slots, self.slot_frames), (self.slots,), (self.frames,)

    @property
    def plan_size(self) -> int:
        """Numbers in a plan."""
        return sum(map(prod, self._parts()))

    def split(self, plan: Tensor) -> tuple[Tensor, ...]:
        """Return the parts of a plan as views."""
        shapes = self._parts()
        parts = torch.split(plan, [prod(shape) for shape in shapes])
        return tuple(part.view(shape) for part, shape in zip(parts, shapes, strict=True))


@dataclass(frozen=True, kw_only=True, slots=True)
class Slots:
    """The grid in which attention is computed."""

    frames: Tensor
    """The pass's frame at each place of the grid: int64, (slots, slot frames)."""
    is_window: Tensor
    """The places that belong to a window: bool, (slots, slot frames)."""
    places: Tensor
    """The place in the flattened grid of each frame of the pass: int64, (frames,)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stretch:
    """Spectrogram rows that are subsampled at once."""

    rows: slice
    lead_frames: int
    """Encoder frames at the beginning that only provide context for the others."""
    edges: tuple[Tensor, ...]
    """The rows to set to zero before each strided convolution after the first: int64, (edges,)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PassLayout:
    """All that the network's parts need to know of a pass. Without gaps and slots one window fills it."""

    frames: int
    block: int
    stretches: tuple[Stretch, ...]
    gaps: Tensor | None
    """Frames that belong to no window and are beside one: int64, (frames,)."""
    slots: Slots | None

    @classmethod
    def of_plan(cls, shape: PassShape, plan: Tensor) -> "PassLayout":
        """Return the layout of a plan that `plan_pass` has made, on the plan's device."""
        edges, gaps, frames, lengths, places = shape.split(plan)
        place = torch.arange(shape.slot_frames, device=plan.device)
        rows = shape.block * shape.factor
        return cls(
            frames=shape.frames,
            block=shape.block,
            stretches=tuple(
                Stretch(
                    rows=slice(block * rows, (block + 1) * rows + shape.factor),
                    lead_frames=1,
                    edges=tuple(edges[block]),
                )
                for block in range(shape.blocks)
            ),
            gaps=gaps,
            slots=Slots(frames=frames, is_window=place < lengths[:, None], places=places),
        )

    @classmethod
    def of_lone_window(cls, spectrogram_frames: int, factor: int, device: torch.device) -> "PassLayout":
        """Return the layout of a window that fills its pass; its spectrogram is padded to `padded_rows`."""
        rows, frames = padded_rows(spectrogram_frames, factor), -(-spectrogram_frames // factor)
        edges, valid = [], spectrogram_frames
        for level in range(1, factor.bit_length() - 1):
            valid = -(-valid // 2)
            edges.append(torch.tensor([valid] if valid < rows >> level else [], dtype=torch.int64, device=device))
        stretch = Stretch(rows=slice(0, rows), lead_frames=0, edges=tuple(edges))
        return cls(frames=frames, block=frames, stretches=(stretch,), gaps=None, slots=None)


def padded_rows(spectrogram_frames: int, factor: int, step: int = 64) -> int:
    """Return the rows of a lone window's spectrogram: a multiple of `step` and of the factor.

    Every shape that a convolution meets on a CPU costs memory for good (measured: 1 MB), so it meets few.
    """
    step = max(step, factor)
    return -(-spectrogram_frames // step) * step


@dataclass(frozen=True, kw_only=True, slots=True)
class PassSizes:
    """The shapes that passes may have: few, so that each can be recorded."""

    block: int
    blocks: tuple[int, ...]
    """Blocks in a pass, ascending."""
    gap: int
    factor: int

    @property
    def frames(self) -> tuple[int, ...]:
        """Frames in a pass, ascending."""
        return tuple(self.block * blocks for blocks in self.blocks)

    @property
    def longest_plan(self) -> int:
        """Numbers in the longest plan."""
        frames = self.frames[-1]
        return max(
            self._shape(frames, _LARGEST_GRID * frames // slot_frames, slot_frames).plan_size
            for slot_frames in SLOT_FRAMES
        )

    def shape_for(self, spectrogram_frames: Sequence[int]) -> PassShape | None:
        """Return the smallest shape that holds the windows; None where they do not fit into one pass.

        Slots are as long as the longest window wants. They are enough for windows of two thirds of that on average;
        where there are more windows, there are half as many slots again, and so on, to a limit.
        """
        lengths = [-(-frames // self.factor) for frames in spectrogram_frames]
        taken, longest = sum(lengths) + self.gap * len(lengths), max(lengths)
        frames = next((size for size in self.frames if size >= taken), None)
        slot_frames = next((size for size in SLOT_FRAMES if size >= longest), None)
        if frames is None or slot_frames is None:
            return None
        slots = max(1, frames * 3 // (slot_frames * 2))
        while slots < len(lengths):
            slots += max(1, slots // 2)
        return self._shape(frames, slots, slot_frames) if slots * slot_frames <= _LARGEST_GRID * frames else None

    def _shape(self, frames: int, slots: int, slot_frames: int) -> PassShape:
        return PassShape(
            frames=frames, block=self.block, slots=slots, slot_frames=slot_frames, gap=self.gap, factor=self.factor
        )


def plan_pass(shape: PassShape, spectrogram_frames: Sequence[int]) -> tuple[tuple[int, ...], NDArray[np.int64]]:
    """Place windows end to end in a pass that holds them: see `PassSizes.shape_for`.

    Return each window's first encoder frame, and the numbers of all index tensors, for `PassLayout.of_plan`.
    """
    counts = [-(-frames // shape.factor) for frames in spectrogram_frames]
    starts = np.cumsum([0, *(count + shape.gap for count in counts)])[:-1]
    plan = np.zeros(shape.plan_size, dtype=np.int64)
    edges, gaps, frames, lengths, places = (part.numpy() for part in shape.split(torch.from_numpy(plan)))
    gaps[:] = shape.frames - 1
    lengths[: len(counts)] = counts
    for window, (start, count) in enumerate(zip(starts, counts, strict=True)):
        frames[window, :count] = np.arange(start, start + count)
        places[start : start + count] = window * shape.slot_frames + np.arange(count)
        gaps[window * shape.gap : (window + 1) * shape.gap] = start + count + np.arange(shape.gap)
    _mark_edges(shape, edges, starts * shape.factor, spectrogram_frames)
    return tuple(starts.tolist()), plan


def _mark_edges(
    shape: PassShape, edges: NDArray[np.int64], starts: NDArray[np.int64], spectrogram_frames: Sequence[int]
) -> None:
    """Fill in the rows just before each window and just after it, by block and level, as rows of the block's stretch.

    A convolution over three rows looks no further. Where a block has fewer edges than places, one is repeated.
    """
    ends = starts + np.asarray(spectrogram_frames, dtype=np.int64)
    for level in range(1, shape.levels + 1):
        scale = 1 << level
        beside = np.concatenate((starts // scale - 1, -(-ends // scale)))
        for block in range(shape.blocks):
            first = (block * shape.block - 1) * shape.factor // scale  # one frame leads
            rows = beside - first
            inside = rows[(rows >= 0) & (rows < (shape.block + 1) * shape.factor // scale)]
            if len(inside):
                edges[block, level - 1] = np.resize(inside, edges.shape[2])
