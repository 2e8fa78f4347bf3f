"""The log-mel spectrogram of a window: power in mel bands, its logarithm normalised band by band."""

import torch
import torch.nn.functional as F  # noqa: N812  torch's own custom
from torch import Tensor

from worker.adapters.parakeet.network.config import NetworkConfig
from worker.adapters.parakeet.network.weights import Weights

_FULL_SCALE = 32_768
_PLAN_FRAMES = 64
"""cuFFT makes and keeps a plan for every number of frames: they come in multiples of 0.64 s."""
_DEVIATION_FLOOR = 1e-5
"""NeMo's, so that a silent band is not divided by zero."""


class LogMel:
    """NeMo's log-mel features, in float32 whatever the network's precision."""

    def __init__(self, weights: Weights, config: NetworkConfig) -> None:
        self._config = config
        self._window = weights.take("preprocessor.featurizer.window", config.window_samples)
        bands = weights.take("preprocessor.featurizer.fb", 1, config.n_mels, config.n_fft // 2 + 1)
        self._bands = bands[0].t().contiguous()

    def __call__(self, samples: Tensor) -> Tensor:
        """Return the features of one window of int16 samples: float32 of shape (spectrogram frames, bands).

        A window of one frame is zero throughout: it has no spread to be normalised by.
        """
        frames = self._config.spectrogram_frames(len(samples))
        if not frames:
            return self._bands.new_zeros(0, self._config.n_mels)
        wave = self._emphasised(samples.float() / _FULL_SCALE)
        if wave.is_cuda:
            wave = F.pad(wave, (0, -len(wave) % (_PLAN_FRAMES * self._config.hop_samples)))
        mel = torch.log((self._power(wave)[:frames] @ self._bands).add_(self._config.log_guard))
        deviation = mel - mel.mean(dim=0)
        spread = torch.sqrt(deviation.square().sum(dim=0) / max(1, frames - 1))
        return deviation / (spread + _DEVIATION_FLOOR)

    def _emphasised(self, wave: Tensor) -> Tensor:
        """Weaken low frequencies: subtract a share of the previous sample from each."""
        return torch.cat((wave[:1], wave[1:] - self._config.preemphasis * wave[:-1]))

    def _power(self, wave: Tensor) -> Tensor:
        """Return the power spectrum: (frames, frequencies)."""
        spectrum = torch.stft(
            wave,
            n_fft=self._config.n_fft,
            hop_length=self._config.hop_samples,
            win_length=self._config.window_samples,
            window=self._window,
            center=True,
            pad_mode="constant",
            return_complex=True,
        ).t()
        return torch.addcmul(spectrum.real * spectrum.real, spectrum.imag, spectrum.imag)
