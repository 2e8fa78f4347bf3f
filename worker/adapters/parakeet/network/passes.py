"""Windows through the encoder, in passes: one window a pass on a CPU, packed passes on a GPU.

On a GPU the size of passes follows from its processors, its free memory, and what has fitted into it.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from worker.adapters.parakeet.frames import LONGEST_WINDOW_FRAMES, WINDOW_FRAMES
from worker.adapters.parakeet.network.config import NetworkConfig
from worker.adapters.parakeet.network.cuda import RecordedPasses, Report, Staging, ignore
from worker.adapters.parakeet.network.encoder import Encoder
from worker.adapters.parakeet.network.layout import PassLayout, PassShape, PassSizes, padded_rows, plan_pass
from worker.adapters.parakeet.network.spectrogram import LogMel
from worker.adapters.parakeet.network.tdt_decoder import TdtDecoder
from worker.adapters.parakeet.network.weights import Weights
from worker.adapters.parakeet.network.window_decoder import EncodedWindows
from worker.ports import Pcm

_TILE = 128
"""Rows and columns of a product that one of the GPU's processors computes at once."""

_LEAST_BLOCK, _LARGEST_BLOCK = 512, 2048
_MOST_BLOCKS = 4
_USABLE = 0.9
"""The share of the free memory that passes may take; the allocator cannot use all of its blocks."""

FIRST_PATIENCE, LONGEST_PATIENCE = 64, 4096
"""Passes that must have fitted before a larger size is tried again: seconds on a GPU, doubled to minutes by tries that
fail, which cost a pass each."""

Lap: TypeAlias = Callable[[str], object]
"""Called after each stage, once the host is done with it: mel, encoder, decoding, words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """The network's parts, and where they are."""

    config: NetworkConfig
    log_mel: LogMel
    encoder: Encoder
    decoder: TdtDecoder
    device: torch.device
    dtype: torch.dtype

    @classmethod
    def of(cls, config: NetworkConfig, weights: Weights) -> "Parts":
        """Build the network. Raises `WrongWeights` where the weights are not just those that it asks for."""
        parts = cls(
            config=config,
            log_mel=LogMel(weights, config),
            encoder=Encoder(weights, config),
            decoder=TdtDecoder(weights, config),
            device=weights.device,
            dtype=weights.dtype,
        )
        weights.require_all_taken()
        return parts


Passes: TypeAlias = Callable[[Sequence[Pcm]], Iterable[EncodedWindows]]
"""Encodes windows; the results hold them in order. Raises `torch.OutOfMemoryError`."""


class LonePasses:
    """Each window in a pass of its own, at its own length.

    `threads` windows are encoded side by side, each by one thread: that scales better than threads within a product.
    """

    def __init__(self, parts: Parts, *, threads: int = 1, lap: Lap = ignore) -> None:
        self._parts, self._lap = parts, lap
        self._pool = ThreadPoolExecutor(threads, "encoder") if threads > 1 else None

    def __call__(self, windows: Sequence[Pcm]) -> Iterable[EncodedWindows]:
        """See `Passes`. With one thread the work is done on return, with more it goes on.

        Raises ValueError for a window of more frames than there are positions for.
        """
        config = self._parts.config
        for window in windows:
            if config.encoder_frames(len(window)) > LONGEST_WINDOW_FRAMES:
                longest = LONGEST_WINDOW_FRAMES * config.frame_seconds
                raise ValueError(f"a window of {len(window)} samples is longer than {longest} s")
        return self._pool.map(self._encode, windows) if self._pool else [self._encode(one) for one in windows]

    @torch.inference_mode()  # which each thread has for itself
    def _encode(self, window: Pcm) -> EncodedWindows:
        config, parts = self._parts.config, self._parts
        rows = config.spectrogram_frames(len(window))
        if not rows:
            none = torch.zeros(0, config.d_joint, dtype=parts.dtype, device=parts.device)
            return EncodedWindows(frames=none, starts=(0,), lengths=(0,))
        samples = torch.from_numpy(window).to(parts.device)
        features = torch.zeros(
            padded_rows(rows, config.subsampling_factor), config.n_mels, dtype=parts.dtype, device=parts.device
        )
        features[:rows] = parts.log_mel(samples)
        self._lap("mel")
        layout = PassLayout.of_lone_window(rows, config.subsampling_factor, parts.device)
        encoded = parts.encoder(features, layout)
        frames = parts.decoder.project(encoded, layout.block)
        self._lap("encoder")
        return EncodedWindows(frames=frames, starts=(0,), lengths=(layout.frames,))


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


class PackedPasses:
    """Windows end to end in passes of a few shapes, each as large as `limit` and the windows allow.

    `recorded` repeats passes from recordings. Nothing here waits for the device, except where memory has run out.
    """

    def __init__(
        self,
        parts: Parts,
        sizes: PassSizes,
        limit: PassLimit,
        recorded: RecordedPasses | None,
        *,
        report: Report = ignore,
        lap: Lap = ignore,
    ) -> None:
        self._parts, self._sizes, self._limit, self._report, self._lap = parts, sizes, limit, report, lap
        self._recorded = recorded
        self._run = recorded or partial(run_pass, parts)
        hop = parts.config.hop_samples * parts.config.subsampling_factor
        self._samples = Staging(parts.device, torch.int16, sizes.frames[-1] * hop)
        self._plans = Staging(parts.device, torch.int64, sizes.longest_plan)

    @torch.inference_mode()
    def __call__(self, windows: Sequence[Pcm]) -> Iterable[EncodedWindows]:
        """See `Passes`. Raises ValueError for a window that fits into no pass."""
        encoded: list[EncodedWindows] = []
        while (done := sum(len(one.lengths) for one in encoded)) < len(windows):
            try:
                encoded.append(self._encode(*self._next_pass(windows[done:])))
            except torch.OutOfMemoryError:
                halved = self._limit.shrink()
                if not (halved or (self._recorded and self._recorded.recorded)):
                    raise  # else the smallest pass may fit without the recordings
            else:
                self._limit.fitted()
                continue
            # Only here, past the handler, is the traceback gone that kept the tensors of the failed pass alive.
            self._make_room()
            if halved:
                self._report("engine.rows_halved", blocks=self._limit.blocks)
        return encoded

    def _next_pass(self, windows: Sequence[Pcm]) -> tuple[PassShape, Sequence[Pcm]]:
        """Return as many windows as go into one pass, and its shape."""
        rows = [self._parts.config.spectrogram_frames(len(window)) for window in windows]
        shape, count = None, 0
        for count_tried in range(1, len(windows) + 1):
            tried = self._sizes.shape_for(rows[:count_tried])
            if tried is None or (tried.blocks > self._limit.blocks and count):
                break
            shape, count = tried, count_tried
        if shape is None:
            raise ValueError(f"a window of {len(windows[0])} samples does not fit into a pass of {self._sizes.frames}")
        return shape, windows[:count]

    def _encode(self, shape: PassShape, windows: Sequence[Pcm]) -> EncodedWindows:
        config = self._parts.config
        rows = [config.spectrogram_frames(len(window)) for window in windows]
        starts, plan = plan_pass(shape, rows)
        features = self._features(shape, windows, starts)
        self._lap("mel")
        frames = self._run(shape, features, self._plans.send([plan]))
        self._lap("encoder")
        lengths = tuple(-(-count // config.subsampling_factor) for count in rows)
        return EncodedWindows(frames=frames, starts=starts, lengths=lengths)

    def _features(self, shape: PassShape, windows: Sequence[Pcm], starts: Sequence[int]) -> Tensor:
        """Return the spectrograms where the windows lie, after the rows of one frame that lead the first block."""
        features = new_features(self._parts, shape)
        samples = torch.split(self._samples.send(windows), [len(window) for window in windows])
        for window, start in zip(samples, starts, strict=True):
            mel = self._parts.log_mel(window)
            first = (start + 1) * shape.factor
            features[first : first + len(mel)] = mel
        return features

    def _make_room(self) -> None:
        if self._recorded:
            self._recorded.forget()
        if self._parts.device.type == "cuda":
            torch.cuda.empty_cache()


def run_pass(parts: Parts, shape: PassShape, features: Tensor, plan: Tensor) -> Tensor:
    """Return the projected frames of a pass; see `RunPass`."""
    encoded = parts.encoder(features, PassLayout.of_plan(shape, plan))
    return parts.decoder.project(encoded, shape.block)


def new_features(parts: Parts, shape: PassShape) -> Tensor:
    """Return a pass of silence: (spectrogram rows, bands), with the rows of one frame more."""
    rows = (shape.frames + 1) * shape.factor
    return torch.zeros(rows, parts.config.n_mels, dtype=parts.dtype, device=parts.device)


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
