"""NeMo's log-mel spectrogram, for which the host need not wait: it only tells the device what to do.

NeMo 3.0's `normalize_batch` does wait where there is a GPU: it looks for rows of one frame, to refuse them.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Self

import torch
from nemo.collections.asr.parts.preprocessing.features import FilterbankFeatures
from torch import Tensor

Spectrogram = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Waves between -1 and 1, float32 of shape (rows, samples), and each row's valid samples, to features of shape (rows,
bands, frames), zero beyond the valid ones, and each row's valid frames."""

_STD_FLOOR = 1e-5
"""NeMo's, so that a silent band is not divided by nothing."""


def spectrogram_of(preprocessor: Any) -> Spectrogram:
    """Ours where it is the same as NeMo's, else NeMo's own."""
    log_mel = LogMel.of(preprocessor.featurizer)
    return log_mel.of_rows if log_mel else partial(_of_nemo, preprocessor)


class LogMel:
    """A power spectrum in mel bands, its logarithm normalised band by band over the valid frames; all in float32."""

    def __init__(self, featurizer: Any) -> None:
        self._featurizer = featurizer
        self._window = featurizer.window.float()
        self._bands = featurizer.fb[0].float()
        self._guard = float(featurizer.log_zero_guard_value_fn(self._bands))

    @classmethod
    def of(cls, featurizer: Any) -> Self | None:
        """With the featurizer's window and bands, where they lie; None for one that does more than this class knows."""
        knows = (
            type(featurizer) is FilterbankFeatures
            and featurizer.window is not None
            and featurizer.preemph is not None
            and featurizer.stft_pad_amount is None
            and not featurizer.use_grads
            and featurizer.mag_power == 2.0  # noqa: PLR2004  a power spectrum
            and featurizer.log
            and featurizer.log_zero_guard_type == "add"
            and featurizer.frame_splicing == 1
            and featurizer.normalize == "per_feature"
            and featurizer.pad_value == 0
        )
        return cls(featurizer) if knows else None

    def frames_of(self, samples: int) -> int:
        """Valid frames of that many samples."""
        return int(samples // self._featurizer.hop_length)

    def of_wave(self, wave: Tensor) -> Tensor:
        """Of one row that is valid throughout and has at least one frame: features of shape (bands, frames)."""
        frames = self.frames_of(len(wave))
        mel = self._log_mel(self._power(self._emphasised(wave))[:, :frames])
        return _over_spread(mel - mel.mean(dim=-1, keepdim=True), max(1, frames - 1))

    def of_rows(self, waves: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        """See `Spectrogram`. A row of one frame is zero throughout, as is one of none."""
        emphasised = self._emphasised(waves).masked_fill_(_beyond(samples, waves.shape[1]), 0.0)
        mel = self._log_mel(self._power(emphasised))
        frames = samples // self._featurizer.hop_length
        beyond, count = _beyond(frames, mel.shape[2])[:, None], frames[:, None, None]
        mean = mel.masked_fill_(beyond, 0.0).sum(dim=-1, keepdim=True) / count.clamp(min=1)
        deviation = (mel - mean).masked_fill_(beyond, 0.0)
        return _over_spread(deviation, (count - 1).clamp(min=1)), frames

    def _emphasised(self, wave: Tensor) -> Tensor:
        return torch.cat((wave[..., :1], wave[..., 1:] - self._featurizer.preemph * wave[..., :-1]), dim=-1)

    def _power(self, wave: Tensor) -> Tensor:
        spectrum = torch.stft(
            wave,
            n_fft=self._featurizer.n_fft,
            hop_length=self._featurizer.hop_length,
            win_length=self._featurizer.win_length,
            window=self._window,
            center=True,
            pad_mode="constant",
            return_complex=True,
        )
        return spectrum.real.square() + spectrum.imag.square()

    def _log_mel(self, power: Tensor) -> Tensor:
        return torch.log((self._bands @ power).add_(self._guard))


def _beyond(lengths: Tensor, most: int) -> Tensor:
    """What lies beyond each row's length, of shape (rows, most)."""
    return torch.arange(most, device=lengths.device) >= lengths[:, None]


def _over_spread(deviation: Tensor, freedom: Tensor | int) -> Tensor:
    spread = torch.sqrt(deviation.square().sum(dim=-1, keepdim=True) / freedom)
    return deviation / (spread + _STD_FLOOR)


def _of_nemo(preprocessor: Any, waves: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
    # Of one frame there is no spread to normalise by: where there is a GPU, NeMo raises.
    heard = samples.masked_fill(samples < 2 * preprocessor.featurizer.hop_length, 0)
    features, frames = preprocessor(input_signal=waves, length=heard)
    return features, frames
