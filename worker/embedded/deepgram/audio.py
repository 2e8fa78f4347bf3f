"""Audio as it was sent, decoded."""

import hashlib
import io

import soundfile

from worker.ports import SAMPLE_RATE_HZ, Pcm


class Undecodable(Exception):
    """No audio that the stand-in understands."""


def decode(body: bytes) -> Pcm:
    """Return the samples of a FLAC, WAV, Ogg or MP3 file, which must be mono and 16 kHz. Raises `Undecodable`."""
    try:
        samples, rate_hz = soundfile.read(io.BytesIO(body), dtype="int16", always_2d=True)
    except soundfile.LibsndfileError as exc:
        raise Undecodable("corrupt or unsupported data") from exc
    if rate_hz != SAMPLE_RATE_HZ or samples.shape[1] != 1:
        raise Undecodable(f"the stand-in takes mono at {SAMPLE_RATE_HZ} Hz")
    mono: Pcm = samples[:, 0]
    return mono


def fingerprint(samples: Pcm) -> str:
    """Return a fingerprint of the samples that does not depend on their encoding."""
    return hashlib.sha256(samples.tobytes()).hexdigest()[:16]
