"""Files of nothing but frames: MPEG audio (MP1, MP2, MP3) and AAC in ADTS.

They have no container that describes other content, and files are often joined, including their tags. ffmpeg reports
every byte that is no frame; this module decides whether such bytes are damaged audio.
"""

import mmap
import re
from pathlib import Path

from worker.ports import AudioFacts

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
_HEADER = re.compile(rb"\xff[\xfa\xfb\xf2\xf3\xe2\xe3]", re.DOTALL)
"""The first two bytes of a frame of layer 3."""
_FIRST_FRAME_BYTES, _XING_BYTES = 256, 150


def is_spoilt(path: Path) -> bool:
    """Return True for bytes between or after the frames that are neither tags nor zeros, or for a cut last frame.

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
    rate_hz = _rate_hz(version, rate)
    bits = _KBITS[is_first_version, layer][kbits - 1] * 1000
    padding = head[2] >> 1 & 1
    if layer == 1:
        return (12 * bits // rate_hz + padding) * 4
    return _SAMPLES[3 if is_first_version else 2, layer] // 8 * bits // rate_hz + padding


def _rate_hz(version: int, rate: int) -> int:
    return _RATES_HZ[rate] >> {3: 0, 2: 1, 0: 2}[version]


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


def mp3_facts(path: Path) -> AudioFacts | None:
    """Return the facts in an MP3's Xing or Info header; None for every other file, and for an MP3 without one.

    MP3 is the pipeline's format, and starting ffmpeg to probe one frame takes longer than decoding a minute of audio.
    """
    frame = _first_frame(path)
    if frame is None:
        return None
    version, rate = frame[1] >> 3 & 3, frame[2] >> 2 & 3
    is_first_version, is_mono = version == 3, _is_mono(frame)  # noqa: PLR2004
    side_bytes = (17 if is_mono else 32) if is_first_version else (9 if is_mono else 17)
    frames, padding = _xing(frame[4 + side_bytes :])
    if not frames:
        return None
    rate_hz = _rate_hz(version, rate)
    samples = frames * _SAMPLES[3 if is_first_version else 2, 3] - padding
    return AudioFacts(
        codec="mp3",
        sample_rate_hz=rate_hz,
        channels=1 if is_mono else 2,
        duration_seconds=max(0, samples) / rate_hz,
    )


def mp3_channels(path: Path) -> int:
    """Return the channels of an MP3's first frame; 0 for every other file."""
    frame = _first_frame(path)
    return 0 if frame is None else 1 if _is_mono(frame) else 2


def _first_frame(path: Path) -> bytes | None:
    """Return the first bytes of an MP3's first frame, which its tag may precede; None for every other file."""
    with path.open("rb") as file:
        head = file.read(_ID3V2_HEADER_BYTES)
        if head.startswith(b"ID3") and len(head) == _ID3V2_HEADER_BYTES:
            file.seek(_ID3V2_HEADER_BYTES + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]))
        else:
            file.seek(0)
        frame = file.read(_FIRST_FRAME_BYTES)
    if _HEADER.match(frame) is None or len(frame) < _FIRST_FRAME_BYTES:
        return None
    version, rate = frame[1] >> 3 & 3, frame[2] >> 2 & 3
    return None if version == 1 or rate == 3 else frame  # noqa: PLR2004 - reserved values


def _is_mono(frame: bytes) -> bool:
    return frame[3] >> 6 == 3  # noqa: PLR2004 - the last of four modes


def _xing(tag: bytes) -> tuple[int, int]:
    """Return the number of frames, and how many samples its encoder added before and behind; zeros where unknown."""
    if tag[:4] not in {b"Xing", b"Info"} or len(tag) < _XING_BYTES or not tag[7] & 1:
        return 0, 0
    flags = tag[7]
    lame = 8 + 4 * (flags & 1) + 4 * (flags >> 1 & 1) + 100 * (flags >> 2 & 1) + 4 * (flags >> 3 & 1)
    added = tag[lame + 21 : lame + 24]
    states_padding = tag[lame : lame + 4] in {b"LAME", b"Lavf", b"Lavc"}
    padding = (added[0] << 4 | added[1] >> 4) + ((added[1] & 15) << 8 | added[2]) if states_padding else 0
    return int.from_bytes(tag[8:12], "big"), padding
