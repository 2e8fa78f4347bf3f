"""One window at its own length through NeMo's modules: without padding there is nothing to mask.

NeMo's encoder writes masks over every layer's scores and features, a quarter of its time on a CPU, and its spectrogram
does as much again. Here the same modules and the same arithmetic run without; a test holds the tokens to NeMo's.
"""

from typing import Any, Self

import torch
from torch import Tensor

from worker.ports import Pcm

_FULL_SCALE = 32_768
_SHAPE_FRAMES = 64
"""Of the spectrogram: 0.64 s."""
_STD_FLOOR = 1e-5
"""NeMo's, so that a silent band is not divided by nothing."""


class WholeWindows:
    """A network whose encoder looks at the whole window at once, on the CPU."""

    def __init__(self, network: Any) -> None:
        self._encoder, self._featurizer = network.encoder, network.preprocessor.featurizer
        self._window = self._featurizer.window.float()
        self._bands = self._featurizer.fb[0].float()
        self._guard = float(self._featurizer.log_zero_guard_value_fn(self._bands))

    @classmethod
    def of(cls, network: Any) -> Self | None:
        """None for a network that does more than this class knows."""
        encoder, featurizer = network.encoder, network.preprocessor.featurizer
        knows_encoder = (
            encoder.self_attention_model == "rel_pos"
            and list(encoder.att_context_size) == [-1, -1]
            and encoder.pre_encode._subsampling == "dw_striding"  # noqa: SLF001  NeMo tells it nowhere else
            and not encoder.pre_encode.is_causal
            and encoder.reduction_position is None
            and encoder.out_proj is None
        )
        knows_spectrogram = (
            featurizer.normalize == "per_feature"
            and featurizer.mag_power == 2.0  # noqa: PLR2004  a power spectrum
            and featurizer.log
            and featurizer.log_zero_guard_type == "add"
            and featurizer.preemph is not None
            and featurizer.stft_pad_amount is None
            and featurizer.frame_splicing == 1
        )
        return cls(network) if knows_encoder and knows_spectrogram else None

    @property
    def width(self) -> int:
        """Features of a frame."""
        return int(self._encoder.d_model)

    def frames_of(self, samples: int) -> int:
        """How many frames `encode` makes of that many samples."""
        return int(-(-(samples // self._featurizer.hop_length) // self._encoder.subsampling_factor))

    def features(self, window: Pcm) -> Tensor:
        """Of a window with at least one frame: the normalised log-mel spectrogram, float32 of shape (bands, frames)."""
        frames = len(window) // self._featurizer.hop_length
        power = self._power(torch.from_numpy(window).float() / _FULL_SCALE)[:, :frames]
        mel = torch.log((self._bands @ power).add_(self._guard))
        deviation = mel - mel.mean(dim=1, keepdim=True)
        spread = torch.sqrt(deviation.square().sum(dim=1, keepdim=True) / max(1, frames - 1))
        return deviation / (spread + _STD_FLOOR)

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

    def _power(self, wave: Tensor) -> Tensor:
        emphasised = torch.cat((wave[:1], wave[1:] - self._featurizer.preemph * wave[:-1]))
        spectrum = torch.stft(
            emphasised,
            n_fft=self._featurizer.n_fft,
            hop_length=self._featurizer.hop_length,
            win_length=self._featurizer.win_length,
            window=self._window,
            center=True,
            pad_mode="constant",
            return_complex=True,
        )
        return spectrum.real.square() + spectrum.imag.square()
