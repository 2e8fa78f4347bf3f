"""Files of nothing but frames: MPEG audio (MP1, MP2, MP3) and AAC in ADTS.

They have no container that could say what else they hold, and people join them, tags and all. ffmpeg complains of every
byte that is no frame; what they are tells whether audio is spoilt.
"""

import mmap
from pathlib import Path

_SAMPLES = {(3, 1): 384, (3, 2): 1152, (3, 3): 1152, (2, 1): 384, (2, 2): 1152, (2, 3): 576}
_RATES_HZ = (44_100, 48_000, 32_000)
_KBITS = {
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_HEADER_BYTES = 7
_ID3V1_BYTES, _APE_HEADER_BYTES, _ID3V2_HEADER_BYTES = 128, 32, 10
_LYRICS = b"LYRICSBEGIN"
_MOST_ZEROS = 1 << 20


def is_spoilt(path: Path) -> bool:
    """True where bytes lie between or behind the frames that are neither tags nor zeros, or the last frame is cut.

    Reads the whole file.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        at, frame = 0, 0
        while at < len(content):
            frame = _frame_bytes(content, at)
            size = frame or _tag_bytes(content, at)
            if not size:
                return True
            at += size
        return bool(frame) and at > len(content)


def _frame_bytes(content: mmap.mmap, at: int) -> int:
    """Return the size of the frame at `at`, 0 where there is none."""
    head = content[at : at + _HEADER_BYTES]
    if len(head) < _HEADER_BYTES or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:  # noqa: PLR2004 - eleven bits are set
        return 0
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    if layer == 4:  # noqa: PLR2004 - ADTS
        size = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
        return size if head[1] & 0xF0 == 0xF0 and size >= _HEADER_BYTES else 0  # noqa: PLR2004 - a twelfth bit
    kbits, rate = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or not 0 < kbits < 15 or rate == 3:  # noqa: PLR2004 - reserved values
        return 0
    is_first_version = version == 3  # noqa: PLR2004
    rate_hz = _RATES_HZ[rate] >> (0 if is_first_version else 1 if version == 2 else 2)  # noqa: PLR2004
    bits = _KBITS[is_first_version, layer][kbits - 1] * 1000
    padding = head[2] >> 1 & 1
    if layer == 1:
        return (12 * bits // rate_hz + padding) * 4
    return _SAMPLES[3 if is_first_version else 2, layer] // 8 * bits // rate_hz + padding


def _tag_bytes(content: mmap.mmap, at: int) -> int:
    """Return the size of the tag, or of the zeros, at `at`; 0 where there is neither."""
    head = content[at : at + _APE_HEADER_BYTES]
    if head.startswith(b"ID3") and len(head) >= _ID3V2_HEADER_BYTES:
        footer = _ID3V2_HEADER_BYTES if head[5] & 0x10 else 0
        return _ID3V2_HEADER_BYTES + footer + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9])
    if head.startswith(b"APETAGEX") and len(head) == _APE_HEADER_BYTES:
        is_header = head[23] & 0x20
        return _APE_HEADER_BYTES + (int.from_bytes(head[12:16], "little") if is_header else 0)
    if head.startswith(b"TAG"):
        return _ID3V1_BYTES
    if head.startswith(_LYRICS):
        end = content.find(b"LYRICS200", at)
        return end + len(b"LYRICS200") - at if end > 0 else 0
    zeros = content[at : at + _MOST_ZEROS]
    return len(zeros) - len(zeros.lstrip(b"\0"))
