"""Encoder frames that may hold speech, by their energy alone."""

import numpy as np
from numpy.typing import NDArray

FULL_SCALE = 32_768

_SILENCE_RMS = FULL_SCALE * 10 ** (-60 / 20)
_FLOOR_PERCENTILE = 10
_OVER_FLOOR = 2.0
"""In power: speech as strong as the noise behind it. Steady noise of any colour stays within 1.2 of its own floor."""
_MARGIN_FRAMES = 3
"""A token may be emitted this far from its sound."""


def frames_with_speech(samples: NDArray[np.int16], frame_samples: int) -> NDArray[np.bool_]:
    """Return True for each frame, the last one perhaps in part, that is near sound above the window's noise floor."""
    frames = -(-len(samples) // frame_samples)
    padded = np.zeros(frames * frame_samples, np.float32)
    padded[: len(samples)] = samples
    power = np.square(padded.reshape(frames, frame_samples)).mean(axis=1)
    if not frames:
        return np.zeros(0, np.bool_)
    floor = np.percentile(power, _FLOOR_PERCENTILE)
    loud = power > max(_SILENCE_RMS**2, floor * _OVER_FLOOR)
    near = np.convolve(loud, np.ones(2 * _MARGIN_FRAMES + 1), mode="full")[_MARGIN_FRAMES : _MARGIN_FRAMES + frames]
    return near > 0
