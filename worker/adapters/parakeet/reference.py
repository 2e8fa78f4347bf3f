"""NeMo: the judge of the network's tokens, and the engine of models that the network does not know.

The only module that imports NeMo, whose import costs 10 s and 0.7 GB. Images have it where they are built with NEMO=1.

Spectrogram and encoder are NeMo's, one window at a time, at its own length. Decoding is the network's: in NeMo 3.0's
own batched loop the durations of all rows are overwritten while the next label of some is sought.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from nemo.collections.asr.models import ASRModel
from omegaconf import OmegaConf

from worker.adapters.parakeet.frames import flow_of
from worker.adapters.parakeet.network.config import TransducerConfig, UnsupportedModel, transducer_config
from worker.adapters.parakeet.network.tdt_decoder import TdtDecoder
from worker.adapters.parakeet.network.transcriber import TwoStepTranscriber
from worker.adapters.parakeet.network.weights import Weights
from worker.adapters.parakeet.network.window_decoder import EncodedWindows
from worker.errors import ModelLoadingError
from worker.ports import Pcm

_FULL_SCALE = 32_768


def restore(path: Path, device: torch.device, dtype: torch.dtype) -> Any:
    """Return NeMo's network for inference: frozen, its spectrogram in float32 and without dither, so repeatable.

    Raises `ModelLoadingError` where NeMo does not restore it, with NeMo's reason.
    """
    try:
        network = ASRModel.restore_from(str(path.absolute()), map_location="cpu")  # NeMo changes the working folder
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError) as error:
        raise ModelLoadingError(str(path), f"NeMo does not restore it: {type(error).__name__}: {error}") from error
    network.freeze()
    network.to(device)
    for module in (network.encoder, network.decoder, network.joint):
        module.to(dtype)  # not autocast: attention would then run in float32
    featurizer = network.preprocessor.featurizer
    featurizer.dither, featurizer.pad_to = 0.0, 0
    return network


def transducer_of(network: Any, name: str) -> TransducerConfig:
    """Return the sizes of the network's decoder. Raises `ModelLoadingError` unless it is a TDT transducer."""
    raw = cast("dict[str, object]", OmegaConf.to_container(network.cfg, resolve=True))
    try:
        return transducer_config(raw)
    except UnsupportedModel as error:
        raise ModelLoadingError(name, f"{type(network).__name__}: {error}") from error


def languages_of(network: Any) -> frozenset[str]:
    """Return the languages that have a tokenizer of their own; empty where all share one."""
    return frozenset(getattr(network.tokenizer, "tokenizers_dict", None) or ())


class NemoTranscriber(TwoStepTranscriber):
    """A model restored by NeMo. Slow on a GPU."""

    def __init__(
        self,
        network: Any,
        name: str,
        device: torch.device,
        dtype: torch.dtype,
        *,
        batch_windows: int,
        keyterm_weight: float = 0.0,
    ) -> None:
        weights = Weights(network.state_dict(), device, dtype)
        decoder = TdtDecoder(weights, transducer_of(network, name))
        super().__init__(
            NemoPasses(network, decoder, device, dtype),
            decoder,
            network.tokenizer.ids_to_tokens(list(range(network.decoder.blank_idx))),  # of all languages' tokenizers
            flow=flow_of(batch_windows, aside=False),
            device=device,
            dtype=dtype,
            frame_samples=network.encoder.subsampling_factor * network.preprocessor.featurizer.hop_length,
            keyterm_weight=keyterm_weight,
        )


class NemoPasses:
    """NeMo's spectrogram and encoder."""

    def __init__(self, network: Any, decoder: TdtDecoder, device: torch.device, dtype: torch.dtype) -> None:
        self._network, self._decoder, self._device, self._dtype = network, decoder, device, dtype

    def __call__(self, windows: Sequence[Pcm]) -> list[EncodedWindows]:
        """Encode windows; raises `torch.OutOfMemoryError` where one does not fit into memory."""
        return [self._encode(window) for window in windows]

    @torch.inference_mode()
    def _encode(self, window: Pcm) -> EncodedWindows:
        wave = torch.from_numpy(window).to(self._device).float()[None] / _FULL_SCALE
        # A window of one frame has no spread to normalise by: where there is a GPU, NeMo raises.
        heard = len(window) if len(window) >= 2 * self._network.preprocessor.featurizer.hop_length else 0
        length = torch.tensor([heard], device=self._device)
        if not heard:
            none = torch.zeros(0, self._decoder.joint_size, dtype=self._dtype, device=self._device)
            return EncodedWindows(frames=none, starts=(0,), lengths=(0,))
        features, frames = self._network.preprocessor(input_signal=wave, length=length)
        encoded, lengths = self._network.encoder(audio_signal=features.to(self._dtype), length=frames)
        valid = encoded[0, :, : int(lengths)].t().contiguous()
        projected = self._decoder.project(valid, len(valid))
        return EncodedWindows(frames=projected, starts=(0,), lengths=(len(projected),))
