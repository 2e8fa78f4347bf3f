"""Configuration, weights and pieces of a model, whatever file they came in."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from worker.adapters.parakeet.loading import BadModelFile, safetensors_folder
from worker.adapters.parakeet.loading.nemo_file import NemoFile
from worker.adapters.parakeet.loading.shapes import require_shapes
from worker.adapters.parakeet.network.config import NetworkConfig, network_config
from worker.errors import ModelLoadingError


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFiles:
    """A model that is checked and mapped, not yet a network."""

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
        files = _of_safetensors(path) if path.is_dir() else _of_nemo_file(path)
    except BadModelFile as error:
        raise ModelLoadingError(str(path), error.reason) from error
    except OSError as error:
        raise ModelLoadingError(str(path), error.strerror or str(error)) from error
    return files


def _of_nemo_file(path: Path) -> ModelFiles:
    with NemoFile(path) as file:
        raw = file.config()
        config = network_config(raw)
        pieces = file.pieces(raw)
        if len(pieces) != config.vocabulary_size:
            raise BadModelFile(
                f"the tokenizer has {len(pieces):,} pieces, the configuration {config.vocabulary_size:,}"
            )
        weights = file.weights()
    require_shapes(weights, config)
    return ModelFiles(config=config, weights=weights, pieces=pieces)


def _of_safetensors(folder: Path) -> ModelFiles:
    config = network_config(safetensors_folder.nemo_config(folder))
    weights = safetensors_folder.mapped_weights(folder, config)
    require_shapes(weights, config)
    pieces = safetensors_folder.pieces(folder, config.vocabulary_size)
    return ModelFiles(config=config, weights=weights, pieces=pieces)
