"""The place of a model: a `.nemo` file, a folder of safetensors, or a name on the Hugging Face hub."""

from pathlib import Path

from worker.adapters.parakeet.loading.hub import demand_hub, hub_model
from worker.errors import ModelLoadingError


def model_path(name: str) -> Path:
    """Return the path, absolute, of the model of that name or path; a hub name is downloaded where it is not cached.

    Raises `ModelLoadingError`.
    """
    return _local_path(name) or hub_model(name)


def demand_model(name: str) -> None:
    """Raise `ModelLoadingError` where there is no such file or folder, or no way to the hub; takes a second at most."""
    if _local_path(name) is None:
        demand_hub(name)


def _local_path(name: str) -> Path | None:
    """Return the path of a model on this machine, None for a hub name."""
    path = Path(name)
    if path.is_dir():
        return path.absolute()
    if name.endswith(".nemo"):
        if not path.is_file():
            raise ModelLoadingError(name, f"there is no file {path.absolute()}")
        return path.absolute()
    if name.startswith((".", "/")) or name.count("/") != 1:
        reason = "neither a .nemo file, nor a folder, nor a hub name like nvidia/parakeet-tdt-0.6b-v2"
        raise ModelLoadingError(name, reason)
    return None
