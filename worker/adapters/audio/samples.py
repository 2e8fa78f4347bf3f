"""Samples as ffmpeg pipes them, made the worker's int16.

ffmpeg rounds and clips to int16 itself, bit for bit as it is done here, and half as many bytes cross the pipe; but NaN
becomes full-scale noise. So what may hold NaN, files of floats, comes as floats.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.ports import Pcm

_FULL_SCALE = 32_768


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoding:
    """Encoding of samples in the pipe; `name` is ffmpeg's. `to_int16` drops a trailing part of a sample."""

    name: str
    sample_bytes: int
    to_int16: Callable[[bytes | memoryview], Pcm]


def _from_floats(block: bytes | memoryview) -> Pcm:
    """Round: what exceeds full scale is clipped, NaN becomes silence; 16-bit sources come through bit for bit."""
    heard = np.frombuffer(block, "<f4", count=len(block) // 4)
    scaled: NDArray[np.float32] = heard.clip(-1.0, 1.0)
    np.nan_to_num(scaled, copy=False)
    scaled *= _FULL_SCALE
    np.rint(scaled, out=scaled)
    np.minimum(scaled, _FULL_SCALE - 1, out=scaled)
    return scaled.astype(np.int16)


def _from_integers(block: bytes | memoryview) -> Pcm:
    return np.frombuffer(block, "<i2", count=len(block) // 2).astype(np.int16, copy=False)


FLOATS = Encoding(name="f32le", sample_bytes=4, to_int16=_from_floats)
INTEGERS = Encoding(name="s16le", sample_bytes=2, to_int16=_from_integers)


def encoding_for(codec: str | None) -> Encoding:
    """Return the encoding to request from ffmpeg for a codec."""
    return FLOATS if codec is not None and codec.startswith("pcm_f") else INTEGERS
