"""Encoder frames of a window, the plan of a pass, and how many windows a model takes at each of its steps.

On a GPU the encoder takes passes of a few fixed sizes, so that each shape can be recorded as a CUDA graph. Windows of
any length lie end to end in a pass; what no window fills is computed for nothing. On a CPU a pass has the frames of its
windows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from worker.ports import SAMPLE_RATE_HZ

LONGEST_WINDOW_SAMPLES = 40 * SAMPLE_RATE_HZ
"""Parakeet models are trained on clips of at most 40 s."""

HOP_SAMPLES, SUBSAMPLING_FACTOR = 160, 8
"""Samples of a spectrogram frame, and spectrogram frames of an encoder frame."""

WINDOW_FRAMES = 384
"""Frames of a window of 30 s, which has 375, rounded up to a multiple of 128."""

LONGEST_WINDOW_FRAMES = 512
"""40.96 s at 80 ms a frame."""

WINDOWS_OF_A_BATCH = 8
"""Windows of 30 s in a batch where the device does not say."""

_DECODED_WINDOWS = 32
"""Windows that are decoded at once. On a CPU a window of the tiny model takes 9.6 ms by 16, 6.7 by 24, 5.5 by 32."""

_CHUNK_WINDOWS = 12
"""On a CPU the decoder's rows that stay empty at the end of a chunk cost as much as two windows of the encoder."""

_PASS_COST_FRAMES = 128
"""Fixed cost of a pass, in frames: on an L4 reading the weights takes as long as computing about 128 frames."""


def encoder_frames(samples: int) -> int:
    """Return how many frames of 80 ms the encoder makes of a window: its spectrogram frames over 8, rounded up.

    So do all Parakeet TDT models that are published. A model of other frames takes more passes than planned, without
    harm: the process packs what it gets by its own frames.
    """
    return -(-(samples // HOP_SAMPLES) // SUBSAMPLING_FACTOR)


def pass_capacity(windows: int) -> int:
    """Return the frames of a pass for the given number of windows of 30 s, at least those of the longest window."""
    return max(LONGEST_WINDOW_FRAMES, windows * WINDOW_FRAMES)


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
        """Return the size of the pass for windows of that many frames in all, at most `capacity`."""
        return next((size for size in self.sizes if size >= frames), frames)

    def fill(self, frames: Sequence[int], size: int) -> list[int]:
        """Return the positions of the windows that fit into a pass of `size` frames, taken in order."""
        taken: list[int] = []
        for position, wanted in enumerate(frames):
            if wanted <= size and len(taken) < self.most_windows:
                taken.append(position)
                size -= wanted
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
            left_out = set(taken)
            left = [one for position, one in enumerate(frames) if position not in left_out]
            rest, _ = self._cheapest(left, size)
            ways.append((size + _PASS_COST_FRAMES + rest, taken))
        return min(ways, key=lambda way: way[0])


@dataclass(frozen=True, kw_only=True, slots=True)
class Flow:
    """The numbers of windows that a model takes at each of its two steps."""

    plan: PassPlan
    """By which the worker packs windows into batches."""
    batch_windows: int
    """Windows of 30 s in a full batch."""
    decoded_windows: int
    """Most windows that are decoded at once."""
    windows_ahead: int
    """Windows that should be encoded, or in the encoder, before the first of them are decoded."""
    windows_of_a_chunk: int
    """The same where no window waits behind them."""
    batches_in_flight: int
    """Batches that keep the model busy: some that are not answered yet, and some to begin meanwhile."""


def flow_of(batch_windows: int, *, aside: bool, sizes: tuple[int, ...] = (), gap_frames: int = 0) -> Flow:
    """Return the flow of a model by the windows of 30 s in a full batch of it, with passes as in `PassPlan`.

    An encoder that runs aside has work while windows are decoded. Before one that does not, as many windows are decoded
    as another full batch might not fit in with.
    """
    decoded = batch_windows * max(1, _DECODED_WINDOWS // batch_windows)
    ahead = 2 * decoded if aside else max(decoded // 2, decoded - batch_windows) + 1
    return Flow(
        plan=PassPlan(
            capacity=sizes[-1] if sizes else pass_capacity(batch_windows),
            most_windows=decoded if sizes else batch_windows,
            sizes=sizes,
            gap_frames=gap_frames,
        ),
        batch_windows=batch_windows,
        decoded_windows=decoded,
        windows_ahead=ahead,
        windows_of_a_chunk=ahead if aside else min(ahead, _CHUNK_WINDOWS),
        batches_in_flight=(decoded + (ahead if aside else batch_windows)) // batch_windows,
    )
