"""The header of a WAV file, and the length that it states, which many programs write before they know it."""

import os
from dataclasses import dataclass
from pathlib import Path

from worker.ports import AudioFacts

_UNKNOWN_FROM = 0x7FFF_F000
"""The size that sox writes into a pipe; others write more, up to 0xFFFFFFFF, or 0."""
_MOST_CHUNKS = 1000
_HEADER_BYTES = 8
_PCM = b"\x01\x00"
_FORMAT_BYTES = 16
_CODECS = {8: "pcm_u8", 16: "pcm_s16le", 24: "pcm_s24le", 32: "pcm_s32le"}
"""Names of ffmpeg, by the bits of a sample."""
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
    rate_hz: int = 0
    block_bytes: int = 0
    """One sample of each channel."""
    bits: int = 0

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
            if chunk[:4] == b"data":
                there = end - file.tell()
                file.seek(min(end, file.tell() + size + size % 2))
                follows = file.read(_HEADER_BYTES)
                more = _is_chunk(follows, end)
                return _wav_size(form, stated_bytes=size, there_bytes=there, has_more_chunks=more)
            following = file.tell() + size + size % 2
            if chunk[:4] == b"fmt ":
                form = file.read(min(size, _FORMAT_BYTES))
            file.seek(following)
    return None


def _wav_size(form: bytes, *, stated_bytes: int, there_bytes: int, has_more_chunks: bool) -> WavSize:
    return WavSize(
        stated_bytes=stated_bytes,
        there_bytes=there_bytes,
        has_more_chunks=has_more_chunks,
        channels=int.from_bytes(form[2:4], "little"),
        is_pcm=form[:2] == _PCM,
        rate_hz=int.from_bytes(form[4:8], "little"),
        block_bytes=int.from_bytes(form[12:14], "little"),
        bits=int.from_bytes(form[14:16], "little"),
    )


def _is_chunk(header: bytes, end: int) -> bool:
    """Return True for a name of four printable characters, and a size that fits into the file."""
    name, size = header[:4], int.from_bytes(header[4:], "little")
    return len(header) == _HEADER_BYTES and name.isascii() and name.decode().isprintable() and size <= end
