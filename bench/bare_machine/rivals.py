"""NeMo and transformers on the same device and audio, where they are installed."""

import logging
import time
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.bare_machine.speed import seconds_of, timed

_DEFAULT_BATCH = 4
"""Batch size of NeMo's `transcribe`."""

_FRAMES_PER_SECOND = 100
"""Frames per second of a spectrogram."""


def is_installed(package: str) -> bool:
    """Return True where the package can be imported; nothing is imported."""
    return find_spec(package) is not None


def nemo_speeds(
    path: Path,
    windows: Sequence[NDArray[np.int16]],
    device: torch.device,
    dtype: torch.dtype,
    *,
    batch_sizes: Sequence[int],
    most_seconds: float,
) -> Mapping[str, float]:
    """Return NeMo's `transcribe` in times real time, at its default batch size and at others, as time allows."""
    from nemo.collections.asr.models import ASRModel  # noqa: PLC0415

    from bench.parakeet.nemo import Nemo  # noqa: PLC0415

    _silence_libraries()
    until = time.monotonic() + most_seconds
    nemo = Nemo(ASRModel.restore_from(str(path), map_location=device))
    nemo.in_precision(dtype)
    nemo.with_times(False)
    speeds: dict[str, float] = {}
    for size in (_DEFAULT_BATCH, *batch_sizes):
        if time.monotonic() > until:
            break
        try:
            nemo.windows(windows[:size], size)
            seconds = timed(device, partial(nemo.windows, windows, size), 1)
        except torch.OutOfMemoryError:
            break
        speeds[f"batch size {size}"] = seconds_of(windows) / seconds
    return speeds


def transformers_speeds(
    layers: int, seconds: float, device: torch.device, dtype: torch.dtype, *, batch_sizes: Sequence[int]
) -> Mapping[str, float]:
    """Return the encoder's speed in transformers, in times real time, with random weights of the same sizes."""
    from transformers import ParakeetEncoder, ParakeetEncoderConfig  # noqa: PLC0415

    _silence_libraries()
    config = ParakeetEncoderConfig(
        num_mel_bins=128, num_hidden_layers=layers, attention_bias=False, convolution_bias=False, scale_input=False
    )
    encoder: Any = ParakeetEncoder(config)
    encoder = encoder.to(device, dtype).eval()
    rows = round(seconds * _FRAMES_PER_SECOND)
    speeds: dict[str, float] = {}
    for size in batch_sizes:
        features = torch.randn(size, rows, 128, device=device, dtype=dtype)
        run = partial(_run, encoder, features, torch.ones(size, rows, dtype=torch.long, device=device))
        run()
        speeds[f"encoder, batch size {size}"] = size * seconds / timed(device, run, 2)
    return speeds


@torch.inference_mode()
def _run(encoder: Any, features: torch.Tensor, mask: torch.Tensor) -> None:
    encoder(input_features=features, attention_mask=mask)


def _silence_libraries() -> None:
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
