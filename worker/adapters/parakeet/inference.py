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
from worker.adapters.parakeet.graphs import CudaCapture, RecordedEncoder
from worker.adapters.parakeet.rows import RowsThatFit, rows_within
from worker.adapters.parakeet.spectrogram import spectrogram_of
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
    a fixed length at once, or the half, quarter and so on that memory holds, silence where windows are missing; once
    warm, it repeats recorded passes. On a CPU it takes one window at its own length, which is faster there. The decoder
    always takes `batch_size` rows of a fixed length, being bound by its number of steps.

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
        self._encoder = RecordedEncoder(partial(_encoder_pass, self._network))
        self._whole = None if self._on_gpu else WholeWindows.of(self._network)
        self._map = map if self._on_gpu or threads == 1 else ThreadPoolExecutor(threads, "encoder").map
        self._decode = GreedyTdt(self._network, steps_per_poll=8 if self._on_gpu else 1)
        self._spectrogram = spectrogram_of(self._network.preprocessor)
        self._frame_seconds = self._network.encoder.subsampling_factor * self._network.cfg.preprocessor.window_stride
        self._pieces: list[str] = self._network.tokenizer.ids_to_tokens(list(range(self._network.decoder.blank_idx)))

    @property
    def mixes_lengths(self) -> bool:
        """Windows need not be of one bucket: each goes through the encoder by itself, at its own length."""
        return self._whole is not None

    def warm_up(self) -> None:
        """Pay now what the first batch would pay: on a GPU for every shape, the biggest first.

        There it also measures what a row of each length takes, from then on asks for no more than the cap holds, and
        records the encoder's passes as far as they leave room for one that is not recorded.
        """
        if not self._on_gpu:
            self([np.zeros(BUCKETS_SAMPLES[0], dtype=np.int16)])
            return
        most_bytes = max([self._warm_up_rows(samples) for samples in reversed(BUCKETS_SAMPLES)])
        rows_of = {samples: self._rows.of(samples) for samples in BUCKETS_SAMPLES}
        self._encoder.record(rows_of, self._noise, CudaCapture(), lambda: self._free_bytes() > most_bytes)

    def _warm_up_rows(self, samples: int) -> int:
        """What its rows of that length take in bytes."""
        silence = np.zeros(samples, dtype=np.int16)
        row_bytes = self._row_bytes(silence)
        self._rows.limit(samples, rows_within(self._free_bytes(), row_bytes, self._batch_size))
        self([silence] * self._rows.of(samples))
        return row_bytes * self._rows.of(samples)

    def _free_bytes(self) -> float:
        """Below the cap that `set_per_process_memory_fraction` has set; what graphs hold is not free."""
        torch.cuda.empty_cache()
        share = torch.cuda.get_per_process_memory_fraction(self._device)
        total = torch.cuda.get_device_properties(self._device).total_memory
        return share * total - torch.cuda.memory_reserved(self._device)

    def _noise(self, samples: int, rows: int) -> tuple[Tensor, Tensor]:
        """Features of windows from that length down to half of it, the same at each call."""
        rng = np.random.default_rng(samples)
        lengths = [samples - row * samples // (2 * rows) for row in range(rows)]
        noise = [rng.integers(-10_000, 10_000, length, dtype=np.int16) for length in lengths]
        return self._features(noise, rows, samples)

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
            try:
                return [self._encode_pass(windows[start : start + rows], rows, samples) for start in starts]
            except torch.OutOfMemoryError:
                self._encoder.forget()  # smaller batches need that memory
                raise

        passes = self._rows.run(samples, in_passes)
        encoded = torch.cat([encoded for encoded, _ in passes])[: self._batch_size]
        lengths = torch.cat([lengths for _, lengths in passes])[: self._batch_size]
        lengths[len(windows) :] = 0
        missing = self._batch_size - len(encoded)
        pad = torch.nn.functional.pad
        return pad(encoded, (0, 0, 0, 0, 0, missing)), pad(lengths, (0, missing))

    def _encode_pass(self, windows: Sequence[Pcm], rows: int, samples: int) -> tuple[Tensor, Tensor]:
        features, frames = self._features(windows, rows, samples)
        self._lap("mel")
        encoded, frames = self._encoder(samples, features, frames)
        self._lap("encoder")
        return encoded.transpose(1, 2), frames

    def _features(self, windows: Sequence[Pcm], rows: int, samples: int) -> tuple[Tensor, Tensor]:
        """Of each row, in the encoder's precision, and how many of its frames are valid."""
        # Pinned memory is copied while the host goes on.
        signal = torch.zeros(rows, samples, dtype=torch.int16, pin_memory=self._on_gpu)
        # Filler rows are silence of full length: no row without frames.
        lengths = torch.full((rows,), samples, pin_memory=self._on_gpu)
        for row, window in enumerate(windows):
            signal[row, : len(window)] = torch.from_numpy(window)
            lengths[row] = len(window)
        wave = signal.to(self._device, non_blocking=self._on_gpu).float() / 32768
        lengths = lengths.to(self._device, non_blocking=self._on_gpu)
        features, frames = self._spectrogram(wave, lengths)
        return features.to(self._dtype), frames


def _encoder_pass(network: Any, features: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
    encoded, frames = network.encoder(audio_signal=features, length=frames)
    return encoded, frames


def _tokens_by_row(steps: Steps, pieces: Sequence[str]) -> Iterator[list[Token]]:
    columns = (steps.emitted, steps.labels, steps.frames, steps.durations, steps.confidences)
    for emitted, *values in zip(*(column.T.cpu() for column in columns), strict=True):
        rows = zip(*(value[emitted].tolist() for value in values), strict=True)
        yield [Token(pieces[label], frame, frames, confidence) for label, frame, frames, confidence in rows]
