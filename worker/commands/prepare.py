"""`prepare`: a model in the precision that it is used in, with its checksum note and its calibration."""

from pathlib import Path
from typing import Literal

from rich.text import Text

from worker.commands.console import EXIT_USAGE, fail, out
from worker.errors import ModelLoadingError

Precision = Literal["bfloat16", "float16", "float32"]


def prepare(model: str, target: Path, precision: Precision) -> None:
    """Write the model as the file `target`. Exit 1 where it cannot be read, or not as a model of the network."""
    from worker.adapters.parakeet.loading.model_path import demand_model, model_path  # noqa: PLC0415

    if target.suffix != ".nemo":
        fail(f"{target} must end in .nemo", EXIT_USAGE)
    try:
        demand_model(model)
    except ModelLoadingError as exc:  # whose advice is about a setting
        fail(str(exc))
    from worker.adapters.parakeet.loading.facts import copy_calibration  # noqa: PLC0415  # torch
    from worker.adapters.parakeet.loading.model_files import write_model  # noqa: PLC0415  # torch: seconds
    from worker.adapters.parakeet.network.config import UnsupportedModel  # noqa: PLC0415

    source = model_path(model)
    try:
        write_model(source, target, precision)
        copy_calibration(source, target)
    except UnsupportedModel as exc:
        fail(f"{model}: {exc}; only a model that the network knows can be written again")
    out().print(Text(f"{target}: {target.stat().st_size / 1e6:,.1f} MB in {precision}, with its checksum note"))
