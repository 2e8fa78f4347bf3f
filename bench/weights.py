"""Model of a benchmark: a name of ours, or any value of PARAKEET_MODEL_NAME."""

from collections.abc import Callable
from pathlib import Path

from bench.parakeet.results import RANDOM_WEIGHTS
from bench.speech import some_speech
from worker.embedded.samples import tiny_model

TINY_WEIGHTS = "tiny"
_CALIBRATION_SECONDS = 60.0
_SEED = 1


def model_of(name: str, folder: Path, say: Callable[[str], None]) -> str:
    """Return the model's hub name or path; random weights are created below `folder`, which takes a minute."""
    if name == TINY_WEIGHTS:
        return str(tiny_model())
    if name != RANDOM_WEIGHTS:
        return name
    from bench.parakeet.random_model import write_random_model  # noqa: PLC0415  NeMo: 10 s

    say("making a model of 0.6 billion random weights")
    path = folder / f"{RANDOM_WEIGHTS}.nemo"
    write_random_model(path, some_speech(_CALIBRATION_SECONDS, _SEED))
    return str(path)


def file_name(weights: str) -> str:
    """Return the last part of a path or hub name, for headings."""
    return weights.rpartition("/")[2]
