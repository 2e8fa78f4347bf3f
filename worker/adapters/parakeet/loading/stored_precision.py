"""A `.nemo` file whose large matrices are stored in the precision that they are used in.

The network computes with most weights in float32 before it rounds them: batch norm is folded, positions are projected.
Only the matrices that it rounds as they are, 96 % of a 0.6B model, are stored rounded. So the network is the same in
every bit, from half the bytes.
"""

import re
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from worker.adapters.parakeet.loading.checksum_note import WEIGHTS, note_of, prepare
from worker.adapters.parakeet.loading.model_files import open_model_files
from worker.adapters.parakeet.protocol import Precision
from worker.errors import ModelLoadingError

_ROUNDED = re.compile(
    r"encoder\.layers\.\d+\.(feed_forward[12]\.linear[12]|self_attn\.linear_(q|k|v|out)|conv\.pointwise_conv[12])\.weight"
)


def write_model(source: Path, target: Path, precision: Precision) -> None:
    """Write the `.nemo` file `source` again as `target`, with its checksum note beside it.

    The target appears whole or not at all. Raises `ModelLoadingError` and `UnsupportedModel` as `open_model_files`
    does, and OSError.
    """
    if source.is_dir():
        raise ModelLoadingError(str(source), "only a .nemo file can be written in another precision")
    dtype: torch.dtype = getattr(torch, precision)
    weights = {
        name: tensor.to(dtype) if _ROUNDED.fullmatch(name) else tensor
        for name, tensor in open_model_files(source).weights.items()
    }
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        saved, written = Path(folder, WEIGHTS), Path(folder, target.name)
        torch.save(weights, saved)
        _copy_with_weights(source, written, saved)
        note = prepare(written)
        written.replace(target)
        note_of(target).write_text(note)


def stored_precision(weights: Mapping[str, Tensor]) -> torch.dtype:
    """Return the precision that the large matrices are stored in."""
    return next((tensor.dtype for name, tensor in weights.items() if _ROUNDED.fullmatch(name)), torch.float32)


def _copy_with_weights(source: Path, target: Path, weights: Path) -> None:
    with tarfile.open(source, "r:") as old, tarfile.open(target, "w:") as new, weights.open("rb") as replacement:
        for member in old:
            content = old.extractfile(member) if member.isreg() else None
            if PurePosixPath(member.name).name == WEIGHTS:
                member.size, content = weights.stat().st_size, replacement
            new.addfile(member, content)
