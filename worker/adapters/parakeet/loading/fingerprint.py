"""The identity of a model in an engine: it keys every checkpoint, so nothing that can change words may be left out."""

import hashlib
from pathlib import Path

import structlog
import torch

from worker.adapters.parakeet.loading.checksum_note import UnusualFileError, noted_sum, sum_of

log = structlog.get_logger()

CALIBRATION = "calibration.json"
"""Beside the weights, and not of them: it is in the fingerprint by itself."""

DECODING_VERSION = "4"
"""Part of every fingerprint: raised when a change of ours can give the same audio other words."""


def model_fingerprint(weights_sum: str, dtype: torch.dtype, engine: str) -> str:
    """Return the SHA-256, hex, of weights, precision, and what else shapes the arithmetic of `engine`."""
    return hashlib.sha256(f"{weights_sum},{DECODING_VERSION},{dtype},{engine}".encode()).hexdigest()


def weights_sum(model: Path) -> str:
    """Return the SHA-256, hex, of a `.nemo` file, from its note where there is one, or of a folder's files."""
    if model.is_dir():
        sums = (
            f"{file.name} {sum_of(file)}"
            for file in sorted(model.iterdir())
            if file.is_file() and file.name != CALIBRATION
        )
        return hashlib.sha256("\n".join(sums).encode()).hexdigest()
    try:
        return noted_sum(model)
    except FileNotFoundError:
        return sum_of(model)
    except (UnusualFileError, ValueError, KeyError, OSError) as error:
        log.warning("engine.note_not_believed", file=str(model), reason=f"{type(error).__name__}: {error}")
        return sum_of(model)
