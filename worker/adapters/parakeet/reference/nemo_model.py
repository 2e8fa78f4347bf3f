"""A model restored by NeMo itself."""

from pathlib import Path
from typing import Any, cast

import torch
from nemo.collections.asr.models import ASRModel
from omegaconf import OmegaConf

from worker.adapters.parakeet.network.config import TransducerConfig, transducer_config
from worker.adapters.parakeet.network.options import UnsupportedModel
from worker.errors import ModelLoadingError


def restore(path: Path, device: torch.device, dtype: torch.dtype) -> Any:
    """Return NeMo's network for inference: frozen, its spectrogram in float32 and without dither, so repeatable.

    Raises `ModelLoadingError` where NeMo does not restore it, with NeMo's reason.
    """
    try:
        network = ASRModel.restore_from(str(path.absolute()), map_location="cpu")  # NeMo changes the working folder
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError) as error:
        raise ModelLoadingError(str(path), f"NeMo does not restore it: {type(error).__name__}: {error}") from error
    settle(network, device, dtype)
    return network


def settle(network: Any, device: torch.device, dtype: torch.dtype) -> None:
    """Freeze the network on its device."""
    network.freeze()
    network.to(device)
    for module in (network.encoder, network.decoder, network.joint):
        module.to(dtype)  # not autocast: attention would then run in float32
    featurizer = network.preprocessor.featurizer
    featurizer.dither, featurizer.pad_to = 0.0, 0


def transducer_of(network: Any, name: str) -> TransducerConfig:
    """Return the sizes of the network's decoder. Raises `ModelLoadingError` unless it is a TDT transducer."""
    raw = cast("dict[str, object]", OmegaConf.to_container(network.cfg, resolve=True))
    try:
        return transducer_config(raw)
    except UnsupportedModel as error:
        raise ModelLoadingError(name, f"{type(network).__name__}: {error.reason}") from error


def pieces_of(network: Any) -> list[str]:
    """Return the pieces by label, of all languages where there are several tokenizers."""
    pieces: list[str] = network.tokenizer.ids_to_tokens(list(range(network.decoder.blank_idx)))
    return pieces


def languages_of(network: Any) -> frozenset[str]:
    """Return the languages that have a tokenizer of their own; empty where all share one."""
    return frozenset(getattr(network.tokenizer, "tokenizers_dict", None) or ())
