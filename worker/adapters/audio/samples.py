"""Float samples as ffmpeg pipes them, made the worker's int16."""

import numpy as np
from numpy.typing import NDArray

from worker.ports import Pcm

FLOAT_BYTES = 4
_FULL_SCALE = 32_768


def to_int16(block: bytes) -> Pcm:
    """Round little-endian float32 samples to int16: what exceeds full scale is clipped, NaN becomes silence.

    16-bit sources come through bit for bit. A trailing part of a sample is dropped.
    """
    heard = np.frombuffer(block, "<f4", count=len(block) // FLOAT_BYTES)
    scaled: NDArray[np.float32] = heard.clip(-1.0, 1.0)
    if scaled.size and np.isnan(scaled.min()):  # looking costs a tenth of always replacing
        np.nan_to_num(scaled, copy=False)
    scaled *= _FULL_SCALE
    np.rint(scaled, out=scaled)
    np.minimum(scaled, _FULL_SCALE - 1, out=scaled)
    return scaled.astype(np.int16)
