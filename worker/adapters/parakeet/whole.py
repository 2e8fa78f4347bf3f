"""One window at its own length through NeMo's modules: without padding there is nothing to mask.

NeMo's encoder writes masks over every layer's scores and features, a quarter of its time on a CPU, and its spectrogram
does as much again. Here the same modules and the same arithmetic run without, on attention of our own; a test holds the
tokens to NeMo's.
"""

from typing import Any, Self

import torch
from torch import Tensor

from worker.adapters.parakeet.attention import sees_its_whole_input, with_fused_attention
from worker.adapters.parakeet.buckets import BUCKETS_SAMPLES
from worker.adapters.parakeet.spectrogram import LogMel
from worker.ports import Pcm

_FULL_SCALE = 32_768
_SHAPE_FRAMES = 64
"""Of the spectrogram: 0.64 s."""


class WholeWindows:
    """A network whose encoder looks at the whole window at once, on the CPU; at most the longest bucket is one."""

    def __init__(self, encoder: Any, log_mel: LogMel) -> None:
        self._log_mel, self._subsampling = log_mel, int(encoder.subsampling_factor)
        self._encoder = with_fused_attention(encoder, longest_frames=self.frames_of(BUCKETS_SAMPLES[-1]))

    @classmethod
    def of(cls, network: Any) -> Self | None:
        """None for a network that does more than this class and `LogMel` know."""
        encoder, log_mel = network.encoder, LogMel.of(network.preprocessor.featurizer)
        knows_encoder = (
            sees_its_whole_input(encoder)
            and encoder.pre_encode._subsampling == "dw_striding"  # noqa: SLF001  NeMo tells it nowhere else
            and not encoder.pre_encode.is_causal
            and encoder.reduction_position is None
            and encoder.out_proj is None
        )
        return cls(encoder, log_mel) if knows_encoder and log_mel else None

    def frames_of(self, samples: int) -> int:
        """How many frames `encode` makes of that many samples."""
        return -(-self._log_mel.frames_of(samples) // self._subsampling)

    def features(self, window: Pcm) -> Tensor:
        """Of a window with at least one frame: the normalised log-mel spectrogram, float32 of shape (bands, frames)."""
        return self._log_mel.of_wave(torch.from_numpy(window).float() / _FULL_SCALE)

    def encode(self, features: Tensor) -> Tensor:
        """Encoder output of shape (frames, features)."""
        encoder = self._encoder
        hidden: Tensor = encoder.pre_encode.out(self._subsample(features).transpose(1, 2).flatten(2))
        hidden, positions = encoder.pos_enc(x=hidden, cache_len=0)
        for layer in encoder.layers:
            hidden = layer(x=hidden, att_mask=None, pos_emb=positions, pad_mask=None)
        return hidden[0]

    def _subsample(self, features: Tensor) -> Tensor:
        """The convolutions before the layers, of shape (1, channels, frames, bands).

        Every shape that they meet costs memory for good (measured: 1 MB), so they meet few: the end is padded, and kept
        at zero, which is what a convolution takes to lie beyond an end.
        """
        frames = features.shape[1]
        padded = torch.nn.functional.pad(features.T, (0, 0, 0, -frames % _SHAPE_FRAMES))
        # The order of memory that convolutions like: four times as fast as the other on a CPU.
        hidden: Tensor = padded[None, None].to(memory_format=torch.channels_last)
        for layer in self._encoder.pre_encode.conv:
            if isinstance(layer, torch.nn.Conv2d) and layer.stride != (1, 1):
                hidden[:, :, frames:] = 0
                frames = -(-frames // 2)
            hidden = layer(hidden)
        return hidden[:, :, :frames]
