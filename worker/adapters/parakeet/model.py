"""Loading a Parakeet TDT model through NeMo, whose import costs 10 s and 0.7 GB: for the inference process only."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import structlog
import torch
from nemo.collections.asr.models import ASRModel

from worker.adapters.parakeet.loaded import LoadedModel
from worker.adapters.parakeet.loading.device import open_device
from worker.adapters.parakeet.loading.fingerprint import model_fingerprint, weights_sum
from worker.adapters.parakeet.loading.languages import known_languages
from worker.adapters.parakeet.mapped import restore
from worker.adapters.parakeet.protocol import EngineOptions
from worker.errors import ModelLoadingError
from worker.ports import EngineFacts

log = structlog.get_logger()


def load_model(options: EngineOptions) -> tuple[LoadedModel, EngineFacts]:
    """Load the model, from the hub's cache where it is a hub name, and make it ready for repeatable inference.

    Raises `GpuNotAvailable` or `ModelLoadingError` for what is checked here; what NeMo and its hub client raise besides
    is open-ended and passes through.
    """
    device = open_device(options.device, options.memory_limit_gib)
    dtype = getattr(torch, options.gpu_precision) if device.type == "cuda" else torch.float32
    path = model_file(options.model_name).absolute()  # NeMo changes the working directory for a moment
    with ThreadPoolExecutor(1, "sum") as aside:
        summed = aside.submit(weights_sum, path)
        network = restore(path)
        _require_tdt(options.model_name, network)
        settle(network, device, dtype)
    facts = EngineFacts(
        model_name=options.model_name,
        model_fingerprint=model_fingerprint(summed.result(), dtype, f"nemo, {options.batch_size} rows"),
        device_name=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        uses_gpu=device.type == "cuda",
        languages=options.languages or _languages(options.model_name, network),
    )
    return LoadedModel(network=network, device=device, dtype=dtype), facts


def model_file(name: str) -> Path:
    """Where the `.nemo` file of that name or path lies. Raises `ModelLoadingError`, and what NeMo's hub client does."""
    if name.endswith(".nemo"):
        path = Path(name)
        if not path.is_file():
            raise ModelLoadingError(name, f"there is no file {path.absolute()}")
        return path
    if name.startswith((".", "/")) or name.count("/") != 1:
        raise ModelLoadingError(name, "neither a path to a .nemo file nor a hub name like nvidia/parakeet-tdt-0.6b-v2")
    cached = Path(ASRModel.from_pretrained(name, return_model_file=True))
    if not cached.is_file():
        raise ModelLoadingError(name, "the hub repository holds no .nemo file")
    return cached


def _require_tdt(name: str, network: Any) -> None:
    if not network.cfg.get("decoding", {}).get("durations") or not network.decoder.blank_as_pad:
        raise ModelLoadingError(
            name, f"a {type(network).__name__} without token durations; it must be a TDT transducer"
        )
    if not isinstance(getattr(network.decoder.prediction["dec_rnn"], "lstm", None), torch.nn.LSTM):
        raise ModelLoadingError(name, "its prediction network is not a plain LSTM")


def settle(network: Any, device: torch.device, dtype: torch.dtype) -> None:
    """Freeze the model on its device; the spectrogram stays float32, and without dither, so that it can be repeated."""
    network.freeze()
    network.to(device)
    for module in (network.encoder, network.decoder, network.joint):
        module.to(dtype)  # not autocast: attention would then run in float32
    featurizer = network.preprocessor.featurizer
    featurizer.dither, featurizer.pad_to = 0.0, 0


def _languages(model_name: str, network: Any) -> frozenset[str]:
    by_language = getattr(network.tokenizer, "tokenizers_dict", None)  # of models with one tokenizer a language
    return frozenset(by_language or known_languages(model_name, int(network.decoder.blank_idx)))
