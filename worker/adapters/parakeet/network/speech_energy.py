"""Encoder frames that may hold speech, by their energy alone."""

import numpy as np
from numpy.typing import NDArray

FULL_SCALE = 32_768

_SILENCE_RMS = FULL_SCALE * 10 ** (-60 / 20)
_FLOOR_PERCENTILE = 10
_OVER_FLOOR = 2.0
"""In power: speech as strong as the noise behind it. Steady noise stays within 1.5 of its own floor."""
_EVERY = 4
"""One sample in four is used: 320 of a frame give its power within 0.3 dB."""
_MARGIN_FRAMES = 3
"""A token may be emitted this far from its sound."""


def frames_with_speech(samples: NDArray[np.int16], frame_samples: int) -> NDArray[np.bool_]:
    """Return True for each frame, the last one perhaps in part, that is near sound above the window's noise floor."""
    frames = -(-len(samples) // frame_samples)
    if not frames:
        return np.zeros(0, np.bool_)
    some = samples[::_EVERY]
    padded = np.zeros((frames, frame_samples // _EVERY), np.float32)
    padded.reshape(-1)[: len(some)] = some[: padded.size]
    power = np.einsum("ij,ij->i", padded, padded) / padded.shape[1]
    floor = np.percentile(power, _FLOOR_PERCENTILE)
    loud = power > max(_SILENCE_RMS**2, floor * _OVER_FLOOR)
    near = np.convolve(loud, np.ones(2 * _MARGIN_FRAMES + 1), mode="full")[_MARGIN_FRAMES : _MARGIN_FRAMES + frames]
    return near > 0
