"""Windows in, words out: spectrogram, encoder, decoding, all as tensors; no file and no data loader."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from schemas.speech import Word
from worker.adapters.parakeet.buckets import BUCKETS_SAMPLES, bucket_of
from worker.adapters.parakeet.decoding import GreedyTdt, Steps
from worker.adapters.parakeet.rows import RowsThatFit, rows_within
from worker.adapters.parakeet.whole import WholeWindows
from worker.adapters.parakeet.words import Token, words_of
from worker.ports import SAMPLE_RATE_HZ, Pcm


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedModel:
    """A frozen NeMo transducer on its device; `dtype` is that of its encoder, decoder and joint."""

    network: Any
    device: torch.device
    dtype: torch.dtype


def no_lap(stage: str) -> None:
    """Nobody looks at the clock."""


class WindowsToWords:
    """A loaded model that turns windows into words; one caller at a time.

    A window's words are bit for bit the same whatever shares its batch. On a GPU the encoder takes `batch_size` rows of
    a fixed length at once, or the half, quarter and so on that memory holds, silence where windows are missing; on a
    CPU it takes one window at its own length, which is faster there. The decoder always takes `batch_size` rows of a
    fixed length, being bound by its number of steps.

    On a CPU so many windows are encoded side by side as `threads` says, each by one thread: that scales better than
    threads within a matrix product, and leaves the words as they are. `lap` is told of each stage when the host is done
    with it: mel, encoder, decoding, words; with one thread only.
    """

    def __init__(
        self, model: LoadedModel, batch_size: int, *, threads: int = 1, lap: Callable[[str], None] = no_lap
    ) -> None:
        self._network, self._device, self._dtype = model.network, model.device, model.dtype
        self._on_gpu = model.device.type == "cuda"
        self._batch_size, self._lap = batch_size, lap
        self._rows = RowsThatFit(batch_size if self._on_gpu else 1)
        self._whole = None if self._on_gpu else WholeWindows.of(self._network)
        self._map = map if self._on_gpu or threads == 1 else ThreadPoolExecutor(threads, "encoder").map
        self._decode = GreedyTdt(self._network, steps_per_poll=8 if self._on_gpu else 1)
        self._frame_seconds = self._network.encoder.subsampling_factor * self._network.cfg.preprocessor.window_stride
        self._pieces: list[str] = self._network.tokenizer.ids_to_tokens(list(range(self._network.decoder.blank_idx)))

    @property
    def mixes_lengths(self) -> bool:
        """Windows need not be of one bucket: each goes through the encoder by itself, at its own length."""
        return self._whole is not None

    def warm_up(self) -> None:
        """Pay now what the first batch would pay: on a GPU for every shape, the biggest first.

        There it also measures what a row of each length takes, and from then on asks for no more than the cap holds.
        """
        if not self._on_gpu:
            self([np.zeros(BUCKETS_SAMPLES[0], dtype=np.int16)])
            return
        for samples in reversed(BUCKETS_SAMPLES):
            silence = np.zeros(samples, dtype=np.int16)
            self._rows.limit(samples, rows_within(self._free_bytes(), self._row_bytes(silence), self._batch_size))
            self([silence] * self._rows.of(samples))

    def _free_bytes(self) -> float:
        """Below the cap that `set_per_process_memory_fraction` has set."""
        share = torch.cuda.get_per_process_memory_fraction(self._device)
        total = torch.cuda.get_device_properties(self._device).total_memory
        return share * total - torch.cuda.memory_allocated(self._device)

    @torch.inference_mode()
    def _row_bytes(self, window: Pcm) -> int:
        torch.cuda.reset_peak_memory_stats(self._device)
        before = torch.cuda.memory_allocated(self._device)
        self._encode_pass([window], 1, len(window))
        return torch.cuda.max_memory_allocated(self._device) - before

    def __call__(self, windows: Sequence[Pcm]) -> tuple[tuple[Word, ...], ...]:
        """The words of each window (1 to `batch_size`, all of one bucket unless it `mixes_lengths`), in order.

        Raises `torch.OutOfMemoryError` when not even one row at a time fits.
        """
        words = tuple(
            words_of(row, frame_seconds=self._frame_seconds, window_seconds=len(window) / SAMPLE_RATE_HZ)
            for row, window in zip(self.tokens(windows), windows, strict=True)
        )
        self._lap("words")
        return words

    @torch.inference_mode()
    def tokens(self, windows: Sequence[Pcm]) -> list[list[Token]]:
        """The same as tokens."""
        encoded, lengths = self._encode(windows, bucket_of(max(len(window) for window in windows)))
        rows = list(_tokens_by_row(self._decode(encoded, lengths), self._pieces))
        self._lap("decoding")
        return rows[: len(windows)]  # the rest are filler rows

    def _encode(self, windows: Sequence[Pcm], samples: int) -> tuple[Tensor, Tensor]:
        """Encoder output of shape (batch_size, frames, features) and its valid lengths, 0 in filler rows."""
        if self._whole:
            return self._encode_whole(self._whole, windows)
        return self._encode_rows(windows, samples)

    def _encode_whole(self, whole: WholeWindows, windows: Sequence[Pcm]) -> tuple[Tensor, Tensor]:
        # Always of the longest windows' shape: products of another shape could differ in their last bits.
        rows = torch.zeros(self._batch_size, whole.frames_of(BUCKETS_SAMPLES[-1]), whole.width, dtype=self._dtype)
        lengths = torch.zeros(self._batch_size, dtype=torch.long)
        for row, encoded in enumerate(self._map(partial(self._encode_one, whole), windows)):
            rows[row, : len(encoded)] = encoded
            lengths[row] = len(encoded)
        return rows, lengths

    @torch.inference_mode()  # which each thread has for itself
    def _encode_one(self, whole: WholeWindows, window: Pcm) -> Tensor:
        if not whole.frames_of(len(window)):
            return torch.zeros(0, whole.width, dtype=self._dtype)
        features = whole.features(window)
        self._lap("mel")
        encoded = whole.encode(features.to(self._dtype))
        self._lap("encoder")
        return encoded

    def _encode_rows(self, windows: Sequence[Pcm], samples: int) -> tuple[Tensor, Tensor]:
        def in_passes(rows: int) -> list[tuple[Tensor, Tensor]]:
            starts = range(0, len(windows), rows)
            return [self._encode_pass(windows[start : start + rows], rows, samples) for start in starts]

        passes = self._rows.run(samples, in_passes)
        encoded = torch.cat([encoded for encoded, _ in passes])[: self._batch_size]
        lengths = torch.cat([lengths for _, lengths in passes])[: self._batch_size]
        lengths[len(windows) :] = 0
        missing = self._batch_size - len(encoded)
        pad = torch.nn.functional.pad
        return pad(encoded, (0, 0, 0, 0, 0, missing)), pad(lengths, (0, missing))

    def _encode_pass(self, windows: Sequence[Pcm], rows: int, samples: int) -> tuple[Tensor, Tensor]:
        signal = torch.zeros(rows, samples, dtype=torch.int16)
        lengths = torch.full((rows,), samples)  # filler rows are silence of full length: no row without frames
        for row, window in enumerate(windows):
            signal[row, : len(window)] = torch.from_numpy(window)
            lengths[row] = len(window)
        wave = signal.to(self._device).float() / 32768
        features, frames = self._network.preprocessor(input_signal=wave, length=lengths.to(self._device))
        self._lap("mel")
        encoded, frames = self._network.encoder(audio_signal=features.to(self._dtype), length=frames)
        self._lap("encoder")
        return encoded.transpose(1, 2), frames


def _tokens_by_row(steps: Steps, pieces: Sequence[str]) -> Iterator[list[Token]]:
    columns = (steps.emitted, steps.labels, steps.frames, steps.durations, steps.confidences)
    for emitted, *values in zip(*(column.T.cpu() for column in columns), strict=True):
        rows = zip(*(value[emitted].tolist() for value in values), strict=True)
        yield [Token(pieces[label], frame, frames, confidence) for label, frame, frames, confidence in rows]
