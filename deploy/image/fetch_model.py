"""Put the model at the path given, while the image is built: from the hub (MODEL=hub), the tiny one, or none.

The hub's file is that of one revision, and refused unless its SHA-256 is the one expected.
"""

import hashlib
import os
import shutil
import sys
from pathlib import Path


def main(target: Path) -> None:
    """Make the file, or with MODEL=none only its folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    match os.environ["MODEL"]:
        case "hub":
            source = from_hub(target.parent)
            require(source, os.environ["MODEL_SHA256"])
            source.rename(target)
            shutil.rmtree(target.parent / ".cache", ignore_errors=True)
        case "tiny":
            shutil.copyfile(Path(__file__).with_name("tiny-parakeet-tdt.nemo"), target)
        case "none":
            pass
        case other:
            sys.exit(f"MODEL is hub, tiny or none, not {other}")


def from_hub(folder: Path) -> Path:
    """Download the pinned revision of the model's file into the folder."""
    from huggingface_hub import hf_hub_download  # noqa: PLC0415 - not needed for the tiny model

    return Path(
        hf_hub_download(
            os.environ["MODEL_REPOSITORY"],
            os.environ["MODEL_FILE"],
            revision=os.environ["MODEL_REVISION"],
            local_dir=folder,
        )
    )


def require(path: Path, expected: str) -> None:
    """End the build unless the file has that SHA-256."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        sys.exit(f"{path.name} has SHA-256 {found}, expected {expected}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
