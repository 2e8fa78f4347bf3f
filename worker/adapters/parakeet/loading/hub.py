"""Models by their names on the Hugging Face hub, through its own client and its cache.

For the image's build stage and for `transcribe` on a desk. The deployed image names a file: it never asks the hub.
"""

from pathlib import Path

from worker.errors import ModelLoadingError

_SAFETENSORS = ("config.json", "preprocessor_config.json", "tokenizer.json", "model*.safetensors", "model*.json")
"""The files that a folder of safetensors is read from."""


def hub_model(name: str) -> Path:
    """Return the path of the model's `.nemo` file, or of its folder of safetensors where the hub has no such file.

    Downloads what is not cached, and with HF_HUB_OFFLINE=1 nothing. Raises `ModelLoadingError` where the hub has no
    such model, gives no access to it, or cannot be reached.
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
