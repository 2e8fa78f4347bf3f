"""Headers of WAV and FLAC files, which state everything about their audio.

Starting ffmpeg to probe one frame takes as long as decoding some minutes. The length in a WAV's header is often wrong,
since many programs write it before they know it.
"""

import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path

from worker.ports import AudioFacts

_UNKNOWN_FROM = 0x7FFF_F000
"""The size that sox writes into a pipe; others write more, up to 0xFFFFFFFF, or 0."""
_MOST_CHUNKS = 1000
_HEADER_BYTES = 8
_FORMAT = struct.Struct("<HHIIHH")
_PCM = 1
_CODECS = {8: "pcm_u8", 16: "pcm_s16le", 24: "pcm_s24le", 32: "pcm_s32le"}
"""Names of ffmpeg, by the bits of a sample."""
_SLACK_BYTES = 64
"""Behind the samples, of padding that is worth no other reading."""

FLAC = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22(.{34})", re.DOTALL)
"""The mark and the STREAMINFO block, which may be the last block before the frames (RFC 9639, 8.2)."""
_FLAC_BYTES = 42


@dataclass(frozen=True, kw_only=True, slots=True)
class WavSize:
    """The size of the samples by the header, and by the file."""

    stated_bytes: int
    there_bytes: int
    """From the first sample to the end of the file."""
    has_more_chunks: bool
    """Something that is no sample follows where the header says."""
    is_pcm: bool
    """Its samples are plain integers. False, and the numbers below 0, where the header comes without."""
    channels: int
    rate_hz: int
    block_bytes: int
    """One sample of each channel."""
    bits: int

    @property
    def is_complete(self) -> bool:
        """All that the header states is there."""
        return self.stated_bytes <= self.there_bytes

    @property
    def is_wrong(self) -> bool:
        """The samples go on to the end of the file, whatever the header says."""
        if self.stated_bytes == 0 or self.stated_bytes >= _UNKNOWN_FROM:
            return True
        return self.stated_bytes + _SLACK_BYTES < self.there_bytes and not self.has_more_chunks


def wav_facts(path: Path) -> AudioFacts | None:
    """Return the facts in the header of a WAV file of plain integers that is all there; None for every other file.

    A header that contradicts itself, or the file's length, is left to ffmpeg, and so is a file without a sample.
    """
    size = wav_size(path)
    if size is None or not size.is_pcm or size.is_wrong or not size.is_complete or not size.rate_hz:
        return None
    codec = _CODECS.get(size.bits)
    if codec is None or size.block_bytes == 0 or size.block_bytes != size.channels * size.bits // 8:
        return None
    return AudioFacts(
        codec=codec,
        sample_rate_hz=size.rate_hz,
        channels=size.channels,
        duration_seconds=size.stated_bytes / size.block_bytes / size.rate_hz,
    )


def wav_size(path: Path) -> WavSize | None:
    """Read a few bytes of the file; None where it is no WAV. RF64 states its length elsewhere, and right."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(0)
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
            return None
        form = b""
        for _ in range(_MOST_CHUNKS):
            chunk = file.read(_HEADER_BYTES)
            if len(chunk) < _HEADER_BYTES:
                return None
            size = int.from_bytes(chunk[4:], "little")
            first = file.tell()
            following = first + size + size % 2
            if chunk[:4] == b"fmt ":
                form = file.read(min(size, _FORMAT.size))
            file.seek(min(end, following))
            if chunk[:4] == b"data":
                tag, channels, rate_hz, _, block_bytes, bits = _FORMAT.unpack(form.ljust(_FORMAT.size, b"\0"))
                return WavSize(
                    stated_bytes=size,
                    there_bytes=end - first,
                    has_more_chunks=_is_chunk(file.read(_HEADER_BYTES), end),
                    is_pcm=tag == _PCM,
                    channels=channels,
                    rate_hz=rate_hz,
                    block_bytes=block_bytes,
                    bits=bits,
                )
    return None


def _is_chunk(header: bytes, end: int) -> bool:
    """Return True for a name of four printable characters, and a size that fits into the file."""
    name, size = header[:4], int.from_bytes(header[4:], "little")
    return len(header) == _HEADER_BYTES and name.isascii() and name.decode().isprintable() and size <= end


def flac_facts(path: Path) -> AudioFacts | None:
    """Return the facts in a FLAC file's STREAMINFO block; None for every other file."""
    with path.open("rb") as file:
        found = FLAC.match(file.read(_FLAC_BYTES))
    if found is None:
        return None
    # 20 bits of rate, 3 of channels - 1, 5 of bits a sample - 1, 36 of samples a channel (0: unknown)
    packed = int.from_bytes(found[1][10:18], "big")
    rate_hz, samples = packed >> 44, packed & (1 << 36) - 1
    if rate_hz == 0:
        return None
    return AudioFacts(
        codec="flac",
        sample_rate_hz=rate_hz,
        channels=(packed >> 41 & 7) + 1,
        duration_seconds=samples / rate_hz if samples else None,
    )
