"""Encoder frames of a window, and the plan of a pass: which windows share it and how many frames it has.

On a GPU the encoder takes passes of a few fixed sizes, so that few shapes reach the device and each can be recorded as
a CUDA graph. Windows of any length lie end to end in a pass; what no window fills is computed for nothing. On a CPU a
pass has the frames of its windows.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from worker.ports import SAMPLE_RATE_HZ

LONGEST_WINDOW_SAMPLES = 40 * SAMPLE_RATE_HZ
"""Parakeet models are trained on clips of at most 40 s."""

HOP_SAMPLES, SUBSAMPLING_FACTOR = 160, 8
"""Samples of a spectrogram frame, and spectrogram frames of an encoder frame."""

WINDOW_FRAMES = 384
"""Frames of a window of 30 s, which has 375, rounded up to a multiple of 128."""

_LONGEST_WINDOW_FRAMES = 512

_PASS_COST_FRAMES = 128
"""Fixed cost of a pass, in frames: on an L4 reading the weights takes as long as computing about 128 frames."""


def encoder_frames(samples: int) -> int:
    """Return how many frames of 80 ms the encoder makes of a window: its spectrogram frames over 8, rounded up.

    So do all Parakeet TDT models that are published. A model of other frames takes more passes than planned, and no
    harm comes of it: the process packs what it gets by its own frames.
    """
    return -(-(samples // HOP_SAMPLES) // SUBSAMPLING_FACTOR)


def pass_capacity(windows: int) -> int:
    """Return the frames of a pass for the given number of windows of 30 s, at least those of the longest window."""
    return max(_LONGEST_WINDOW_FRAMES, windows * WINDOW_FRAMES)


@dataclass(frozen=True, kw_only=True, slots=True)
class PassPlan:
    """The limits of a pass, and which windows go into the next one."""

    capacity: int
    """Most encoder frames in a pass."""
    most_windows: int
    """Most windows in a pass: as many as the decoder takes."""
    sizes: tuple[int, ...] = ()
    """The sizes a pass can have, ascending, the last one `capacity`. Empty: a pass has the frames of its windows."""
    gap_frames: int = 0
    """Frames after each window that keep its neighbour apart from it."""

    def __post_init__(self) -> None:
        longest = self.frames_of(LONGEST_WINDOW_SAMPLES)
        if self.capacity < longest or self.most_windows < 1:
            raise ValueError(f"{self} does not hold a window of {longest} frames")

    def frames_of(self, samples: int) -> int:
        """Return the frames that a window takes in a pass: its encoder frames and a gap."""
        return encoder_frames(samples) + self.gap_frames

    def pass_frames(self, frames: int) -> int:
        """Return the size of the pass that computes windows of the given total of frames, at most `capacity`."""
        return next((size for size in self.sizes if size >= frames), frames)

    def fill(self, frames: Sequence[int], size: int) -> list[int]:
        """Return the positions of the windows that fit into a pass of `size` frames, taken in order."""
        taken: list[int] = []
        room = size
        for position, wanted in enumerate(frames):
            if wanted <= room and len(taken) < self.most_windows:
                taken.append(position)
                room -= wanted
        return taken

    def next_pass(self, frames: Sequence[int], *, only_full: bool = False) -> list[int]:
        """Return the positions of the windows that go into the next pass, in order.

        `frames` are those of the waiting windows, the next in turn first; the first always has a place, and one that
        does not fit is skipped. Where all of them fit into one pass of `capacity`, it is the first pass of the cheapest
        way to divide them among passes, the largest of equals; with `only_full`, there is then none.
        """
        taken = self.fill(frames, self.capacity)
        if len(taken) < len(frames):
            return taken
        if only_full:
            return []
        return self._cheapest(frames, self.capacity)[1] if self.sizes else taken

    def _cheapest(self, frames: Sequence[int], largest: int) -> tuple[int, list[int]]:
        """Return the cost in frames of the cheapest division into passes that never grow, and its first pass."""
        if not frames:
            return 0, []
        sizes = [size for size in self.sizes if frames[0] <= size <= largest] or [self.pass_frames(frames[0])]
        ways = []
        for size in reversed(sizes):
            taken = self.fill(frames, size)
            rest, _ = self._cheapest(_without(frames, taken), size)
            ways.append((size + _PASS_COST_FRAMES + rest, taken))
        return min(ways, key=lambda way: way[0])


def _without(frames: Sequence[int], positions: Collection[int]) -> list[int]:
    left_out = set(positions)
    return [one for position, one in enumerate(frames) if position not in left_out]
