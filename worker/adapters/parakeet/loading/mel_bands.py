"""The mel bands of NeMo's spectrogram, for weights that come without them."""

import math

import torch
from torch import Tensor

_LINEAR_HZ = 200 / 3
"""Slaney's mel scale is linear below 1 kHz, 66.7 Hz a mel, and logarithmic above."""
_BREAK_HZ = 1000.0
_LOG_STEP = math.log(6.4) / 27.0


def mel_bands(*, n_mels: int, n_fft: int, sample_rate_hz: int) -> Tensor:
    """Return triangles of unit area on Slaney's scale from 0 to half the sample rate.

    float32 of shape (1, n_mels, n_fft // 2 + 1). Source: Slaney's Auditory Toolbox, as librosa.filters.mel computes it.
    """
    top_mel = _mel(sample_rate_hz / 2)
    mels = torch.linspace(0, top_mel, n_mels + 2, dtype=torch.float64)
    linear = mels * _LINEAR_HZ
    break_mel = _mel(_BREAK_HZ)
    corners = torch.where(mels < break_mel, linear, _BREAK_HZ * torch.exp(_LOG_STEP * (mels - break_mel)))
    bins = torch.linspace(0, sample_rate_hz / 2, n_fft // 2 + 1, dtype=torch.float64)
    widths = corners.diff()
    ramps = corners[:, None] - bins
    rising, falling = -ramps[:-2] / widths[:-1, None], ramps[2:] / widths[1:, None]
    triangles = torch.minimum(rising, falling).clamp(min=0).float()  # rounded twice, as librosa does
    return (triangles * (2 / (corners[2:] - corners[:-2]))[:, None]).float()[None]


def _mel(hz: float) -> float:
    if hz < _BREAK_HZ:
        return hz / _LINEAR_HZ
    return _BREAK_HZ / _LINEAR_HZ + math.log(hz / _BREAK_HZ) / _LOG_STEP
