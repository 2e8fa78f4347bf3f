"""Windows through the encoder, in passes: one window a pass on a CPU, packed passes on a GPU."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.adapters.parakeet.frames import LONGEST_WINDOW_FRAMES
from worker.adapters.parakeet.network.config import NetworkConfig
from worker.adapters.parakeet.network.cuda import Staging
from worker.adapters.parakeet.network.encoder import Encoder
from worker.adapters.parakeet.network.graphs import RecordedPasses, Report, ignore
from worker.adapters.parakeet.network.layout import PassLayout, PassShape, PassSizes, padded_rows, plan_pass
from worker.adapters.parakeet.network.pass_sizes import PassLimit
from worker.adapters.parakeet.network.spectrogram import LogMel
from worker.adapters.parakeet.network.tdt_decoder import TdtDecoder
from worker.adapters.parakeet.network.window_decoder import EncodedWindows

Samples: TypeAlias = NDArray[np.int16]
"""Mono samples at 16 kHz, shape (samples,)."""

Lap: TypeAlias = Callable[[str], None]
"""Called after each stage, once the host is done with it: mel, encoder, decoding, words."""


def no_lap(stage: str) -> None:
    """Ignore the stage."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """The network's parts up to the decoder, and where they are."""

    config: NetworkConfig
    log_mel: LogMel
    encoder: Encoder
    decoder: TdtDecoder
    device: torch.device
    dtype: torch.dtype


class Passes(Protocol):
    """A way through the encoder."""

    def __call__(self, windows: Sequence[Samples]) -> Iterable[EncodedWindows]:
        """Encode windows; the results hold them in order. Raises `torch.OutOfMemoryError`."""
        ...


class LonePasses:
    """Each window in a pass of its own, at its own length: nothing to mask, and nothing is shared.

    `threads` windows are encoded side by side, each by one thread: that scales better than threads within a product.
    """

    def __init__(self, parts: Parts, *, threads: int = 1, lap: Lap = no_lap) -> None:
        self._parts, self._lap = parts, lap
        self._pool = ThreadPoolExecutor(threads, "encoder") if threads > 1 else None

    def __call__(self, windows: Sequence[Samples]) -> Iterable[EncodedWindows]:
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
    def _encode(self, window: Samples) -> EncodedWindows:
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
        lap: Lap = no_lap,
    ) -> None:
        self._parts, self._sizes, self._limit, self._report, self._lap = parts, sizes, limit, report, lap
        self._recorded = recorded
        self._run = recorded or partial(run_pass, parts)
        hop = parts.config.hop_samples * parts.config.subsampling_factor
        self._samples = Staging(parts.device, torch.int16, sizes.frames[-1] * hop)
        self._plans = Staging(parts.device, torch.int64, sizes.longest_plan)

    @torch.inference_mode()
    def __call__(self, windows: Sequence[Samples]) -> Iterable[EncodedWindows]:
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

    def _next_pass(self, windows: Sequence[Samples]) -> tuple[PassShape, Sequence[Samples]]:
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

    def _encode(self, shape: PassShape, windows: Sequence[Samples]) -> EncodedWindows:
        config = self._parts.config
        rows = [config.spectrogram_frames(len(window)) for window in windows]
        packed = plan_pass(shape, rows)
        features = self._features(shape, windows, packed.starts)
        self._lap("mel")
        frames = self._run(shape, features, self._plans.send([packed.plan]))
        self._lap("encoder")
        lengths = tuple(-(-count // config.subsampling_factor) for count in rows)
        return EncodedWindows(frames=frames, starts=packed.starts, lengths=lengths)

    def _features(self, shape: PassShape, windows: Sequence[Samples], starts: Sequence[int]) -> Tensor:
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
