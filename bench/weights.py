"""Model of a benchmark: a name of ours, or any value of PARAKEET_MODEL_NAME."""

from collections.abc import Callable
from pathlib import Path

from bench.parakeet.results import RANDOM_WEIGHTS
from bench.speech import some_speech
from worker.embedded.samples import tiny_model
from worker.ports import SAMPLE_RATE_HZ

TINY_WEIGHTS = "tiny"
_CALIBRATION_SECONDS = 60.0
_TUNED_SECONDS = 16
_LAYERS = 24
_SEED = 1


def model_of(name: str, folder: Path, say: Callable[[str], None]) -> str:
    """Return the model's hub name or path; random weights are created below `folder`, which takes a minute."""
    if name == TINY_WEIGHTS:
        return str(tiny_model())
    if name != RANDOM_WEIGHTS:
        return name
    import torch  # noqa: PLC0415  2 s

    from bench.bare_machine.random_model import write_model  # noqa: PLC0415  torch

    say("making a model of 0.6 billion random weights")
    path = folder / f"{RANDOM_WEIGHTS}.nemo"
    speech = some_speech(_CALIBRATION_SECONDS, _SEED)
    write_model(path, layers=_LAYERS, tuned_on=([speech[: _TUNED_SECONDS * SAMPLE_RATE_HZ]], torch.device("cpu")))
    return str(path)


def file_name(weights: str) -> str:
    """Return the last part of a path or hub name, for headings."""
    return weights.rpartition("/")[2]
