"""NeMo's own `transcribe()`, on a network that nothing of ours has changed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import open_dict

from worker.ports import Pcm

_FULL_SCALE = 32_768


class Nemo:
    """NeMo as its users call it. Its answers are tokens; times are computed on request."""

    def __init__(self, network: Any) -> None:
        self._network = network
        self._network.eval()

    def with_times(self, tell: bool) -> None:
        """Set whether the decoder keeps the data for timestamps. Rebuilds the decoder, outside the measured time."""
        decoding = self._network.cfg.decoding
        with open_dict(decoding):
            decoding.compute_timestamps = tell
        self._network.change_decoding_strategy(decoding, verbose=False)

    def in_precision(self, dtype: torch.dtype) -> None:
        """Precision of everything after the spectrogram, which stays in float32."""
        for module in (self._network.encoder, self._network.decoder, self._network.joint):
            module.to(dtype)
        preprocessor = self._network.preprocessor
        preprocessor.dtype_sentinel_tensor = preprocessor.dtype_sentinel_tensor.to(dtype)

    def chunks(self, files: Sequence[Path]) -> None:
        """Files, default batch size, timestamps on."""
        self._network.transcribe([str(file) for file in files], timestamps=True, verbose=False)

    def windows(self, windows: Sequence[Pcm], batch_size: int) -> list[list[str]]:
        """Windows, the longest first so that little is padded; the tokens of each, in the order given."""
        order = sorted(range(len(windows)), key=lambda number: -len(windows[number]))
        waves = [windows[number].astype(np.float32) / _FULL_SCALE for number in order]
        heard = self._network.transcribe(waves, batch_size=batch_size, return_hypotheses=True, verbose=False)
        pieces: list[list[str]] = [[] for _ in windows]
        for number, hypothesis in zip(order, heard, strict=True):
            pieces[number] = self._network.tokenizer.ids_to_tokens([int(token) for token in hypothesis.y_sequence])
        return pieces
