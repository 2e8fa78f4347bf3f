"""Headers of WAV and FLAC files, which state everything about their audio, and the size of the samples by a header.

Starting ffmpeg to probe one frame takes as long as decoding some minutes. Sizes are often wrong, since many programs
write them before they know them.
"""

import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from worker.errors import AudioUndecodable
from worker.ports import AudioFacts

_UNKNOWN_FROM = 0x7EFF_F000
"""Sizes that programs write into a pipe: sox 0x7F000000 and 0x7FFFF000, others more, up to 0xFFFFFFFF, or 0."""
_MOST_CHUNKS = 1000
_PCM, _EXTENSIBLE = 1, 0xFFFE
_FORMAT = struct.Struct("<HHIIHH2xH4xH")
_SHORT_FORMAT_BYTES = 16
_SEARCHED_BITS, _SEARCHED_SAMPLES = 16, 1 << 16
"""ffmpeg looks for frames of other codecs in samples of 16 bits, and so far: it takes 20 ms."""
_LEAST_LIKENESS = 0.1
_MOST_HZ = 384_000
_CODECS = {8: "pcm_u8", 16: "pcm_s16le", 24: "pcm_s24le", 32: "pcm_s32le"}
"""Names of ffmpeg, by the bits of a sample."""
_AIFF_OFFSETS_BYTES = 8
"""Two numbers before the samples of an AIFF, which count among them."""
_SLACK_BYTES = 64
"""Behind the samples, of padding that is worth no other reading."""

FLAC = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22(.{34})", re.DOTALL)
"""The mark and the STREAMINFO block, which may be the last block before the frames (RFC 9639, 8.2)."""
_FLAC_BYTES = 42


@dataclass(frozen=True, kw_only=True, slots=True)
class _Layout:
    """The chunks of a container."""

    mark: re.Pattern[bytes]
    """The first bytes of a file."""
    begin: int
    """The offset of the first chunk."""
    header: struct.Struct
    """Name and size."""
    samples: bytes
    """The name of the chunk of samples."""
    rounded_to: int = 2
    counts_header: bool = False
    """Sizes include the header."""
    unknown_from: int = _UNKNOWN_FROM


_WAV = _Layout(
    mark=re.compile(rb"(RIFF|RF64|BW64)....WAVE", re.DOTALL), begin=12, header=struct.Struct("<4sI"), samples=b"data"
)
_LAYOUTS = (
    _WAV,
    _Layout(mark=re.compile(rb"FORM....AIF[FC]", re.DOTALL), begin=12, header=struct.Struct(">4sI"), samples=b"SSND"),
    _Layout(
        mark=re.compile(rb"caff"),
        begin=8,
        header=struct.Struct(">4sQ"),
        samples=b"data",
        rounded_to=1,
        unknown_from=1 << 62,
    ),
    _Layout(
        mark=re.compile(rb"riff\x2e\x91"),  # W64
        begin=40,
        header=struct.Struct("<4s12xQ"),
        samples=b"data",
        rounded_to=8,
        counts_header=True,
        unknown_from=1 << 62,
    ),
)


class WavFormat(NamedTuple):
    """A WAV's `fmt ` chunk; the last two are 0 in the short form."""

    tag: int
    channels: int
    rate_hz: int
    bytes_a_second: int
    block_bytes: int
    bits: int
    """Bits that a sample takes in the file."""
    valid_bits: int
    """Bits of a sample that count."""
    extended_tag: int

    @property
    def is_integers(self) -> bool:
        """The samples are plain integers."""
        return (self.extended_tag if self.tag == _EXTENSIBLE else self.tag) == _PCM

    @property
    def has_two_channels(self) -> bool:
        """Two channels, with as many samples in each quarter of a second, and no more than there are in use."""
        return (self.channels, self.rate_hz % 4) == (2, 0) and self.rate_hz <= _MOST_HZ

    @property
    def padded_codec(self) -> str | None:
        """The codec of samples that take more bits than count, such as 32 for 24: ffmpeg errs about these."""
        is_padded = self.tag == _EXTENSIBLE and self.is_integers and 0 < self.valid_bits < self.bits
        return _CODECS.get(self.bits) if is_padded else None


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplesSize:
    """The size of the samples by the header, and by the file."""

    stated_bytes: int
    there_bytes: int
    """From the first sample to the end of the file."""
    is_unknown: bool
    """The size was not known when the header was written: the samples go on to the end of the file."""
    has_more_chunks: bool
    """Something that is no sample follows where the header says."""
    wav: WavFormat | None
    """None in another container, or where the chunk is cut."""
    first_byte: int

    @property
    def is_less(self) -> bool:
        """The samples go on to the end of the file, although the header states less."""
        return self.stated_bytes + _SLACK_BYTES < self.there_bytes and not self.has_more_chunks

    @property
    def is_cut(self) -> bool:
        """The file ends before the samples do."""
        return self.stated_bytes > self.there_bytes and not self.is_unknown

    @property
    def is_plain_wav(self) -> bool:
        """It is a WAV of integers, and as long as it states."""
        is_right = self.stated_bytes <= self.there_bytes and not (self.is_unknown or self.is_less)
        return self.wav is not None and self.wav.is_integers and is_right

    def check(self) -> None:
        """Raise `AudioUndecodable` for a header that ffmpeg refuses without naming the cause."""
        if wav := self.wav:
            if not wav.channels or not wav.rate_hz or (wav.is_integers and not wav.bits):
                stated = f"{wav.channels} channels of {wav.rate_hz} Hz and {wav.bits} bits"
                raise AudioUndecodable(f"its WAV header states {stated}, of which none can be 0")
        elif self.stated_bytes <= _AIFF_OFFSETS_BYTES and self.is_less:
            there = f"{self.there_bytes} bytes follow"
            raise AudioUndecodable(f"its header states that it holds no samples, although {there}: write it anew")


def wav_facts(path: Path) -> AudioFacts | None:
    """Return the facts in the header of a WAV file of plain integers that is all there; None for every other file.

    A header that contradicts itself, or the file's length, is left to ffmpeg, and so is a file without a sample.
    """
    size = samples_size(path)
    if size is None or size.wav is None or not size.is_plain_wav:
        return None
    wav = size.wav
    if (
        wav.bits not in _CODECS
        or 0 in {wav.block_bytes, wav.rate_hz}
        or wav.block_bytes != wav.channels * wav.bits // 8
    ):
        return None
    return AudioFacts(
        codec=_CODECS[wav.bits],
        sample_rate_hz=wav.rate_hz,
        channels=wav.channels,
        duration_seconds=size.stated_bytes / wav.block_bytes / wav.rate_hz,
    )


def are_samples(path: Path, size: SamplesSize) -> bool:
    """Return True where a WAV's samples of 16 bits are what it states, and not frames of another codec, such as DTS.

    Such data has nothing to do with what comes just before, as audio has.
    """
    wav = size.wav
    if wav is None or not size.is_plain_wav or wav.bits != _SEARCHED_BITS or wav.block_bytes != 2 * wav.channels:
        return False
    first = np.fromfile(path, "<i2", count=_SEARCHED_SAMPLES, offset=size.first_byte).astype(np.float32)
    likeness = np.dot(first[wav.channels :], first[: -wav.channels])
    return bool(likeness >= _LEAST_LIKENESS * np.dot(first, first))


def samples_size(path: Path) -> SamplesSize | None:
    """Read a few bytes of a WAV, RF64, AIFF, CAF or W64 file; None for every other file, and one without samples."""
    with path.open("rb") as file:
        head = file.read(12)
        layout = next((layout for layout in _LAYOUTS if layout.mark.match(head)), None)
        if layout is None:
            return None
        end, begin = file.seek(0, os.SEEK_END), layout.begin
        wav, in_64_bits = None, None
        for _ in range(_MOST_CHUNKS):
            if (chunk := _chunk(file, layout, begin, end)) is None:
                return None
            name, size = chunk
            first = file.tell()
            if name == b"ds64":
                in_64_bits = int.from_bytes(file.read(16)[8:], "little")
            elif name == b"fmt " and layout is _WAV and size >= _SHORT_FORMAT_BYTES:
                wav = WavFormat._make(_FORMAT.unpack(file.read(min(size, _FORMAT.size)).ljust(_FORMAT.size, b"\0")))
            elif name == layout.samples:
                size, unknown_from = (size, layout.unknown_from) if in_64_bits is None else (in_64_bits, 1 << 62)
                follows = _chunk(file, layout, first + -(-size // layout.rounded_to) * layout.rounded_to, end)
                return SamplesSize(
                    stated_bytes=size,
                    there_bytes=end - first,
                    is_unknown=size == 0 or size >= unknown_from,
                    has_more_chunks=follows is not None and _is_chunk(*follows, end),
                    wav=wav,
                    first_byte=first,
                )
            begin = first + -(-size // layout.rounded_to) * layout.rounded_to
    return None


def _is_chunk(name: bytes, size: int, end: int) -> bool:
    return name.isascii() and name.decode().isprintable() and size <= end


def _chunk(file: BinaryIO, layout: _Layout, offset: int, end: int) -> tuple[bytes, int] | None:
    """Read the header of a chunk: its name, and the size of its body; None at the end of the file."""
    file.seek(min(offset, end))
    header = file.read(layout.header.size)
    if len(header) < layout.header.size:
        return None
    name, size = layout.header.unpack(header)
    return name, max(0, size - layout.header.size) if layout.counts_header else size


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
