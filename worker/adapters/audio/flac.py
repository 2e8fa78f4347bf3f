"""The header of a FLAC file, which states everything about its audio."""

from pathlib import Path

from worker.ports import AudioFacts

_MARK = b"fLaC"
_STREAM_INFO = 0
_STREAM_INFO_BYTES = 34
_HEADER_BYTES = len(_MARK) + 4 + _STREAM_INFO_BYTES


def flac_facts(path: Path) -> AudioFacts | None:
    """Return the facts in a FLAC file's STREAMINFO block (RFC 9639, 8.2); None for every other file.

    Starting ffmpeg to probe one frame takes as long as decoding some minutes of FLAC.
    """
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
    if len(head) < _HEADER_BYTES or not head.startswith(_MARK):
        return None
    if head[4] & 0x7F != _STREAM_INFO or int.from_bytes(head[5:8], "big") != _STREAM_INFO_BYTES:
        return None
    # 20 bits of rate, 3 of channels - 1, 5 of bits a sample - 1, 36 of samples a channel (0: unknown)
    packed = int.from_bytes(head[18:26], "big")
    rate_hz, samples = packed >> 44, packed & (1 << 36) - 1
    if rate_hz == 0:
        return None
    return AudioFacts(
        codec="flac",
        sample_rate_hz=rate_hz,
        channels=(packed >> 41 & 7) + 1,
        duration_seconds=samples / rate_hz if samples else None,
    )
