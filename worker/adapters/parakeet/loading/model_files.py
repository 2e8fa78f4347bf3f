"""Configuration, weights and pieces of a model, whatever file they came in; and a `.nemo` file written again.

The network computes with most weights in float32 before it rounds them: batch norm is folded, positions are projected.
Only the matrices that it rounds as they are, 96 % of a 0.6B model, are written in the precision that they are used in.
So the network is the same in every bit, from half the bytes.
"""

import re
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from worker.adapters.parakeet.loading import BadModelFile, safetensors_folder
from worker.adapters.parakeet.loading.checksum_note import WEIGHTS, note_of, prepare
from worker.adapters.parakeet.loading.nemo_file import open_nemo_file
from worker.adapters.parakeet.network.config import NetworkConfig, network_config
from worker.adapters.parakeet.network.passes import Parts
from worker.adapters.parakeet.network.weights import Weights, WrongWeights
from worker.adapters.parakeet.protocol import Precision
from worker.errors import ModelLoadingError


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFiles:
    """A model that is mapped, not yet a network."""

    config: NetworkConfig
    weights: Mapping[str, Tensor]
    """By NeMo's names, in the types of the file, on the CPU, mapped: a page is read when it is first used."""
    pieces: tuple[str, ...]
    """SentencePiece pieces in the order of their labels."""


def open_model_files(path: Path) -> ModelFiles:
    """Open a `.nemo` file or a folder of safetensors.

    Nothing in the file is executed or unpacked. The file must not be written to while the weights live; it may be
    replaced by renaming. Raises `ModelLoadingError` where it is missing, damaged, foreign or hostile, and
    `UnsupportedModel` where it is a whole model that the network does not compute.
    """
    try:
        return _of_safetensors(path) if path.is_dir() else _of_nemo_file(path)
    except BadModelFile as error:
        raise ModelLoadingError(str(path), str(error)) from error
    except OSError as error:
        raise ModelLoadingError(str(path), error.strerror or str(error)) from error


def _of_nemo_file(path: Path) -> ModelFiles:
    with open_nemo_file(path) as file:
        raw = file.config()
        config = network_config(raw)
        pieces = file.pieces(raw)
        if len(pieces) != config.vocabulary_size:
            raise BadModelFile(
                f"the tokenizer has {len(pieces):,} pieces, the configuration {config.vocabulary_size:,}"
            )
        return ModelFiles(config=config, weights=file.weights(), pieces=pieces)


def _of_safetensors(folder: Path) -> ModelFiles:
    config = network_config(safetensors_folder.nemo_config(folder))
    return ModelFiles(
        config=config,
        weights=safetensors_folder.mapped_weights(folder, config),
        pieces=safetensors_folder.pieces(folder, config.vocabulary_size),
    )


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
    files = open_model_files(source)
    try:
        Parts.of(files.config, Weights(files.weights, torch.device("meta"), dtype))
    except WrongWeights as error:
        raise ModelLoadingError(str(source), str(error)) from error
    weights = {name: tensor.to(dtype) if _ROUNDED.fullmatch(name) else tensor for name, tensor in files.weights.items()}
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
