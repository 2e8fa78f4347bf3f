"""`calibration.json`, beside a model's file or in its folder: the weights that make its confidences probabilities.

It names the model by its checksum, so that another model in the folder is not calibrated by it. Without the file a
word's confidence is that of its weakest piece.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import structlog

from worker.adapters.parakeet.loading.facts import CALIBRATION, weights_sum
from worker.adapters.parakeet.network.words import Calibration
from worker.errors import ModelLoadingError

_WEIGHTS = ("temperature", "near", "bias")
_MOST_BYTES = 100_000

log = structlog.get_logger()


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
