"""The length that a WAV header states, which many programs write before they know it."""

import os
from dataclasses import dataclass
from pathlib import Path

_UNKNOWN_FROM = 0x7FFF_F000
"""The size that sox writes into a pipe; others write more, up to 0xFFFFFFFF, or 0."""
_MOST_CHUNKS = 1000
_HEADER_BYTES = 8
_PCM = b"\x01\x00"
_SLACK_BYTES = 64
"""Behind the samples, of padding that is worth no other reading."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WavSize:
    """The size of the samples by the header, and by the file."""

    stated_bytes: int
    there_bytes: int
    """From the first sample to the end of the file."""
    has_more_chunks: bool
    """Something that is no sample follows where the header says."""
    channels: int
    """0 where the header comes without."""
    is_pcm: bool = False
    """Its samples are plain integers."""

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


def wav_size(path: Path) -> WavSize | None:
    """Read a few bytes of the file; None where it is no WAV. RF64 states its length elsewhere, and right."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(0)
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
            return None
        channels, is_pcm = 0, False
        for _ in range(_MOST_CHUNKS):
            chunk = file.read(_HEADER_BYTES)
            if len(chunk) < _HEADER_BYTES:
                return None
            size = int.from_bytes(chunk[4:], "little")
            if chunk[:4] == b"data":
                there = end - file.tell()
                file.seek(min(end, file.tell() + size + size % 2))
                follows = file.read(_HEADER_BYTES)
                more = _is_chunk(follows, end)
                return WavSize(
                    stated_bytes=size, there_bytes=there, has_more_chunks=more, channels=channels, is_pcm=is_pcm
                )
            following = file.tell() + size + size % 2
            if chunk[:4] == b"fmt ":
                kind = file.read(4)
                is_pcm, channels = kind[:2] == _PCM, int.from_bytes(kind[2:], "little")
            file.seek(following)
    return None


def _is_chunk(header: bytes, end: int) -> bool:
    """Return True for a name of four printable characters, and a size that fits into the file."""
    name, size = header[:4], int.from_bytes(header[4:], "little")
    return len(header) == _HEADER_BYTES and name.isascii() and name.decode().isprintable() and size <= end
