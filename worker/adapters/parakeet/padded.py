"""Windows in rows padded to one length, as many at once as a GPU's memory holds.

Nothing here waits for the device, except where memory is measured or has run out.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worker.adapters.parakeet.buckets import BUCKETS_SAMPLES, bucket_of
from worker.adapters.parakeet.capture import CudaCapture
from worker.adapters.parakeet.graphs import RecordedEncoder
from worker.adapters.parakeet.loaded import Lap, LoadedModel, no_lap
from worker.adapters.parakeet.rows import RowsThatFit, rows_within
from worker.adapters.parakeet.spectrogram import spectrogram_of
from worker.ports import Pcm


class PaddedWindows:
    """The encoder over batches of at most `most_rows` windows.

    It takes rows of a fixed number and length, silence where windows are missing: `most_rows`, or the half, quarter and
    so on that memory holds. Once warm, it repeats recorded passes.
    """

    def __init__(self, model: LoadedModel, most_rows: int, *, graphs: bool = True, lap: Lap = no_lap) -> None:
        self._model, self._most_rows, self._graphs, self._lap = model, most_rows, graphs, lap
        self._rows = RowsThatFit(most_rows)
        self._encoder = RecordedEncoder(partial(_encoder_pass, model.network))
        self._spectrogram = spectrogram_of(model.network.preprocessor)

    def warm_up(self, reserved_bytes: int) -> None:
        """Pay now what the first batch of each length would pay, on a GPU.

        It measures what a row of each length takes, from then on asks for no more than what the cap holds beside
        `reserved_bytes`, and, unless told not to, records the encoder's passes as far as they leave room for one that
        is not recorded.
        """
        most_bytes = max([self._warm_up_rows(samples, reserved_bytes) for samples in reversed(BUCKETS_SAMPLES)])
        if not self._graphs:
            return
        rows_of = {samples: self._rows.of(samples) for samples in BUCKETS_SAMPLES}
        self._encoder.record(
            rows_of, self._noise, CudaCapture(), lambda: self._free_bytes() > most_bytes + reserved_bytes
        )

    @torch.inference_mode()
    def __call__(self, windows: Sequence[Pcm]) -> tuple[Tensor, Tensor]:
        """Encoder output of shape (windows, frames, features), and how many frames of each are valid.

        Raises `torch.OutOfMemoryError` when not even one row at a time fits.
        """
        samples = bucket_of(max(map(len, windows)))

        def in_passes(rows: int) -> list[tuple[Tensor, Tensor]]:
            starts = range(0, len(windows), rows)
            try:
                return [self._encode_pass(windows[start : start + rows], rows, samples) for start in starts]
            except torch.OutOfMemoryError:
                self._encoder.forget()  # smaller batches need that memory
                raise

        encoded, lengths = map(torch.cat, zip(*self._rows.run(samples, in_passes), strict=True))
        return encoded[: len(windows)], lengths[: len(windows)]

    def _warm_up_rows(self, samples: int, reserved_bytes: int) -> int:
        """What its rows of that length take in bytes."""
        silence = np.zeros(samples, dtype=np.int16)
        row_bytes = self._row_bytes(silence)
        self._rows.limit(samples, rows_within(self._free_bytes() - reserved_bytes, row_bytes, self._most_rows))
        self([silence] * self._rows.of(samples))
        return row_bytes * self._rows.of(samples)

    def _free_bytes(self) -> float:
        """Below the cap that `set_per_process_memory_fraction` has set; what graphs hold is not free."""
        torch.cuda.empty_cache()
        share = torch.cuda.get_per_process_memory_fraction(self._model.device)
        total = torch.cuda.get_device_properties(self._model.device).total_memory
        return share * total - torch.cuda.memory_reserved(self._model.device)

    def _noise(self, samples: int, rows: int) -> tuple[Tensor, Tensor]:
        """Features of windows from that length down to half of it, the same at each call."""
        rng = np.random.default_rng(samples)
        lengths = [samples - row * samples // (2 * rows) for row in range(rows)]
        noise = [rng.integers(-10_000, 10_000, length, dtype=np.int16) for length in lengths]
        return self._features(noise, rows, samples)

    @torch.inference_mode()
    def _row_bytes(self, window: Pcm) -> int:
        torch.cuda.reset_peak_memory_stats(self._model.device)
        before = torch.cuda.memory_allocated(self._model.device)
        self._encode_pass([window], 1, len(window))
        return torch.cuda.max_memory_allocated(self._model.device) - before

    def _encode_pass(self, windows: Sequence[Pcm], rows: int, samples: int) -> tuple[Tensor, Tensor]:
        features, frames = self._features(windows, rows, samples)
        self._lap("mel")
        encoded, frames = self._encoder(samples, features, frames)
        self._lap("encoder")
        return encoded.transpose(1, 2), frames

    def _features(self, windows: Sequence[Pcm], rows: int, samples: int) -> tuple[Tensor, Tensor]:
        """Of each row, in the encoder's precision, and how many of its frames are valid."""
        # Pinned memory is copied while the host goes on.
        signal = torch.zeros(rows, samples, dtype=torch.int16, pin_memory=self._model.on_gpu)
        # Filler rows are silence of full length: no row without frames.
        lengths = torch.full((rows,), samples, pin_memory=self._model.on_gpu)
        for row, window in enumerate(windows):
            signal[row, : len(window)] = torch.from_numpy(window)
            lengths[row] = len(window)
        wave = signal.to(self._model.device, non_blocking=self._model.on_gpu).float() / 32768
        lengths = lengths.to(self._model.device, non_blocking=self._model.on_gpu)
        features, frames = self._spectrogram(wave, lengths)
        return features.to(self._model.dtype), frames


def _encoder_pass(network: Any, features: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
    encoded, frames = network.encoder(audio_signal=features, length=frames)
    return encoded, frames
