"""Windows in, words out, with NeMo's spectrogram and encoder: one window at a time, at its own length.

Decoding is the network's: NeMo 3.0's own batched loop gives durations that depend on the other windows.
"""

from collections.abc import Sequence
from typing import Any

import torch

from worker.adapters.parakeet.frames import flow_of
from worker.adapters.parakeet.network.passes import Samples
from worker.adapters.parakeet.network.tdt_decoder import TdtDecoder
from worker.adapters.parakeet.network.transcriber import BLOCK_STEPS, TwoStepTranscriber
from worker.adapters.parakeet.network.weights import Weights
from worker.adapters.parakeet.network.window_decoder import EncodedWindows
from worker.adapters.parakeet.reference.nemo_model import pieces_of, transducer_of

_FULL_SCALE = 32_768


class NemoTranscriber(TwoStepTranscriber):
    """A model restored by NeMo. Slow on a GPU, where every window is a pass of its own."""

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
        decoder = TdtDecoder(weights, transducer_of(network, name), block_steps=BLOCK_STEPS)
        super().__init__(
            NemoPasses(network, decoder, device, dtype),
            decoder,
            pieces_of(network),
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

    def __call__(self, windows: Sequence[Samples]) -> list[EncodedWindows]:
        """Encode windows; raises `torch.OutOfMemoryError` where one does not fit into memory."""
        return [self._encode(window) for window in windows]

    @torch.inference_mode()
    def _encode(self, window: Samples) -> EncodedWindows:
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
