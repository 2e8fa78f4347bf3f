"""The place of a model: a `.nemo` file, a folder of safetensors, or a name on the Hugging Face hub.

The hub, through its own client and its cache, is for the image's build stage and for `transcribe` on a desk. The
deployed image names a file: it never asks the hub.
"""

import os
from pathlib import Path
from urllib.parse import urlsplit

from worker.adapters.machine.network import unreachable
from worker.errors import ModelLoadingError

_PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")

_SAFETENSORS = ("config.json", "preprocessor_config.json", "tokenizer.json", "model*.safetensors", "model*.json")
"""The files that a folder of safetensors is read from."""


def model_path(name: str) -> Path:
    """Return the absolute path of a model; one of the hub is downloaded where it is not cached.

    Raises `ModelLoadingError`.
    """
    return _local_path(name) or _hub_model(name)


def demand_model(name: str) -> None:
    """Raise `ModelLoadingError` where there is no such file or folder, or no way to the hub; takes a second at most."""
    if _local_path(name) is None:
        _demand_hub(name)


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


def _hub_model(name: str) -> Path:
    """Return the path of the model's `.nemo` file, or of its folder of safetensors where the hub has no such file.

    With HF_HUB_OFFLINE=1 nothing is downloaded. Raises `ModelLoadingError` where the hub has no such model, gives no
    access to it, or cannot be reached.
    """
    from huggingface_hub import hf_hub_download, snapshot_download  # noqa: PLC0415  # not for a file on this machine
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError  # noqa: PLC0415

    nemo = f"{name.rpartition('/')[2]}.nemo"
    try:
        try:
            return Path(hf_hub_download(name, nemo))
        except EntryNotFoundError as no_file:  # also where nothing is cached and the hub is out of reach
            folder = Path(snapshot_download(name, allow_patterns=list(_SAFETENSORS)))
            if not (folder / "config.json").exists():
                raise ModelLoadingError(name, f"the hub's repository holds neither {nemo} nor config.json") from no_file
            return folder
    except (OSError, HFValidationError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelLoadingError(name, f"the hub does not give it: {type(error).__name__}: {reason}") from error


def _demand_hub(name: str) -> None:
    """Raise `ModelLoadingError` where the model is not in the cache and the hub cannot be reached."""
    from huggingface_hub.constants import ENDPOINT, HF_HUB_CACHE, HF_HUB_OFFLINE  # noqa: PLC0415  # as above

    if any(Path(HF_HUB_CACHE).glob(f"models--{name.replace('/', '--')}/snapshots/*")):
        return
    advice = "name a .nemo file or a folder by PARAKEET_MODEL_NAME"
    if HF_HUB_OFFLINE:
        raise ModelLoadingError(name, f"it is not in the cache {HF_HUB_CACHE}, and HF_HUB_OFFLINE is set; {advice}")
    if any(os.environ.get(proxy) for proxy in _PROXIES):
        return
    hub = urlsplit(ENDPOINT)
    port = hub.port or (80 if hub.scheme == "http" else 443)
    if reason := unreachable(hub.hostname or "", port):
        raise ModelLoadingError(name, f"the hub {hub.hostname} cannot be reached ({reason}); {advice}")
