"""The network in the test's own process: the tiny model, and random weights of any sizes."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from worker.embedded.samples import tiny_model as tiny_model_file

if TYPE_CHECKING:
    from torch import Tensor

    from worker.adapters.parakeet.loading.model_files import ModelFiles
    from worker.adapters.parakeet.network.passes import EncodedWindows, Parts
    from worker.adapters.parakeet.network.transcriber import Transcriber
    from worker.adapters.parakeet.network.words import Calibration


@cache
def tiny_files() -> "ModelFiles":
    from worker.adapters.parakeet.loading.model_files import open_model_files  # noqa: PLC0415  torch

    return open_model_files(Path(tiny_model_file()))


@cache
def tiny_calibration() -> "Calibration | None":
    from worker.adapters.parakeet.loading.facts import (  # noqa: PLC0415  # torch
        read_calibration,
        weights_sum,
    )

    return read_calibration(tiny_model_file(), weights_sum(tiny_model_file()))


def tiny_transcriber(*, batch_windows: int = 8, threads: int = 1, keyterm_weight: float = 3.5) -> "Transcriber":
    import torch  # noqa: PLC0415

    from worker.adapters.parakeet.network.transcriber import Transcriber  # noqa: PLC0415  torch

    torch.set_num_threads(1)
    transcriber = Transcriber(
        tiny_files(),
        torch.device("cpu"),
        torch.float32,
        batch_windows=batch_windows,
        threads=threads,
        keyterm_weight=keyterm_weight,
    )
    transcriber.calibrate(tiny_calibration())
    return transcriber


def parts_of(transcriber: "Transcriber") -> "Parts":
    return transcriber.parts


def frames_of(encoded: "Sequence[EncodedWindows]") -> "list[Tensor]":
    """The frames of each window."""
    return [
        one.frames[start : start + length]
        for one in encoded
        for start, length in zip(one.starts, one.lengths, strict=True)
    ]
