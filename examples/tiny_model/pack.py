"""Pack trained weights into a .nemo file, halved to float16; `restore_from` gives float32 again.

python pack.py FOLDER WEIGHTS.pt MODEL.nemo        reads tokenizer/ in FOLDER
"""

import argparse
from pathlib import Path
from typing import Any

import nemo.collections.asr as nemo_asr
import torch
from model_config import model_config
from nemo.utils import logging

# Computed from the configuration, and needed in full precision.
_COMPUTED = ("featurizer", "pos_enc")


def pack(folder: Path, weights: Path, packed: Path) -> None:
    """Write the model; the CTC head stays behind."""
    model: Any = nemo_asr.models.EncDecRNNTBPEModel(model_config(folder / "tokenizer"))
    model.load_state_dict(torch.load(weights, weights_only=True)["model"])
    buffers = [buffer for name, buffer in model.named_buffers() if not any(part in name for part in _COMPUTED)]
    for tensor in (*model.parameters(), *buffers):
        if tensor.dtype == torch.float32:
            tensor.data = tensor.data.half()
    model.save_to(str(packed))


def main() -> None:
    """Pack one model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("packed", type=Path)
    arguments = parser.parse_args()
    logging.setLevel(logging.ERROR)
    pack(arguments.folder, arguments.weights, arguments.packed)
    nemo_asr.models.ASRModel.restore_from(str(arguments.packed), map_location="cpu")
    print(f"{arguments.packed}: {arguments.packed.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
