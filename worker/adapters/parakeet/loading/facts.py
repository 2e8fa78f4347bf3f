"""Facts of a model that its file does not state: its identity, its languages and the calibration of its confidences.

The identity keys every checkpoint, so nothing that can change words may be left out.

`calibration.json`, beside a model's file or in its folder, names the model by its checksum, so that another model in
the folder is not calibrated by it. Without the file a word's confidence is that of its weakest piece.
"""

import hashlib
import json
import math
from pathlib import Path, PurePath
from typing import Any

import structlog
import torch

from worker.adapters.parakeet.loading.checksum_note import UnusualFileError, noted_sum, sum_of
from worker.adapters.parakeet.network.words import Calibration
from worker.errors import ModelLoadingError

log = structlog.get_logger()

CALIBRATION = "calibration.json"
"""Beside the weights, and not of them: it is in the fingerprint by itself."""

DECODING_VERSION = "4"
"""Part of every fingerprint: raised when a change of ours can give the same audio other words."""

_WEIGHTS = ("temperature", "near", "bias")
_MOST_BYTES = 100_000

ENGLISH = frozenset({"en"})
EUROPEAN = frozenset(
    "bg hr cs da nl en et fi fr de el hu it lv lt mt pl pt ro sk sl es sv ru uk".split()  # noqa: SIM905  # readable
)
"""The 25 languages of parakeet-tdt-0.6b-v3, by its model card."""

_EUROPEAN_PIECES = 8_192
"""Size of the one tokenizer that v3 and the models made from it share; English models have 1,024 pieces."""

_BY_NAME = {
    "parakeet-tdt-0.6b-v2": ENGLISH,
    "parakeet-tdt-0.6b-v3": EUROPEAN,
    "parakeet-ultra": EUROPEAN,
    "orukeet": EUROPEAN,
}


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


def known_languages(model_name: str, vocabulary_size: int) -> frozenset[str]:
    """Return the languages, as ISO 639 codes, of a model by its hub name or path, or else by its vocabulary.

    A model that is known by neither is taken for English; `PARAKEET_LANGUAGES` overrides.
    """
    name = PurePath(model_name).name.lower().removesuffix(".nemo")
    if name in _BY_NAME:
        return _BY_NAME[name]
    return EUROPEAN if vocabulary_size == _EUROPEAN_PIECES else ENGLISH


def calibration_path(model: Path) -> Path:
    """Return where the calibration of that model is, if it has one."""
    return model / CALIBRATION if model.is_dir() else model.with_name(CALIBRATION)


def read_calibration(model: Path, checksum: str) -> Calibration | None:
    """Return the model's calibration, None where there is none or it is another model's.

    Raises `ModelLoadingError` for a file that is no calibration.
    """
    path = calibration_path(model)
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(_MOST_BYTES))
        found = Calibration(**{name: _number(document[name]) for name in _WEIGHTS})
        fitted_for = document["model_sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{path} is no calibration: {type(error).__name__}: {error}"
        raise ModelLoadingError(str(model), reason) from error
    if found.temperature <= 0:
        raise ModelLoadingError(str(model), f"{path} is no calibration: its temperature must be above 0")
    if fitted_for != checksum:
        log.warning("engine.calibration_of_another_model", file=str(path))
        return None
    return found


def write_calibration(model: Path, checksum: str, calibration: Calibration, fitted_on: str) -> Path:
    """Write the calibration beside the model; return its path."""
    weights = {name: round(getattr(calibration, name), 6) for name in _WEIGHTS}
    path = calibration_path(model)
    path.write_text(json.dumps({"model_sha256": checksum, **weights, "fitted_on": fitted_on}, indent=1) + "\n")
    return path


def copy_calibration(source: Path, target: Path) -> None:
    """Write the calibration of `source`, if it has one, beside `target`: the same model in another precision."""
    if calibration := read_calibration(source, weights_sum(source)):
        write_calibration(target, weights_sum(target), calibration, f"{source.name}, as for that file")


def digest(calibration: Calibration | None) -> str:
    """Return what of a calibration belongs into the model's fingerprint; empty without one."""
    if calibration is None:
        return ""
    weights = ",".join(repr(getattr(calibration, name)) for name in _WEIGHTS)
    return f", calibrated {hashlib.sha256(weights.encode()).hexdigest()[:16]}"


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no number")
    return float(value)
