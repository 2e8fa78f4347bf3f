"""Matroska: ffmpeg's stream of samples with their times, and the moment at which a file begins.

Raw samples in a pipe carry no times, and Matroska is the simplest of the formats that do: elements of an id, a size and
a body, and blocks of samples timed in milliseconds.

ffmpeg rounds and clips to int16 itself, bit for bit as it is done here, and half as many bytes cross the pipe; but NaN
becomes full-scale noise. So what may hold NaN, files of floats, comes as floats.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worker.ports import Pcm

_FULL_SCALE = 32_768
_SEGMENT, _INFO, _SCALE, _CLUSTER, _CLUSTER_TIME = 0x18538067, 0x1549A966, 0x2AD7B1, 0x1F43B675, 0xE7
_BLOCK_GROUP, _BLOCK, _SIMPLE_BLOCK = 0xA0, 0xA1, 0xA3
_ENTERED = frozenset({_SEGMENT, _INFO, _CLUSTER, _BLOCK_GROUP})
"""Elements whose bodies are elements; their sizes do not matter, and may be unknown in a stream."""
_BLOCK_HEADER_BYTES = 4  # of ffmpeg's only track: its number, time (two bytes), flags
_LARGEST_ELEMENT = 64 << 20
_MOST_ELEMENTS = 10_000
_MOST_NUMBER_BYTES = 8
_NANOSECONDS = 1_000_000_000


def are_floats(codec: str) -> bool:
    """Return True for a codec of which ffmpeg is asked for float32; int16 otherwise."""
    return codec.startswith("pcm_f")


def to_int16(block: bytes | memoryview, *, floats: bool) -> Pcm:
    """Return the samples of a block of float32 or int16, without a trailing part of one.

    Floats are rounded: what exceeds full scale is clipped, NaN becomes silence; those of 16 bits come bit for bit.
    """
    if not floats:
        return np.frombuffer(block, "<i2", count=len(block) // 2).astype(np.int16, copy=False)
    scaled: NDArray[np.float32] = np.frombuffer(block, "<f4", count=len(block) // 4).clip(-1.0, 1.0)
    np.nan_to_num(scaled, copy=False)
    scaled *= _FULL_SCALE
    np.rint(scaled, out=scaled)
    np.minimum(scaled, _FULL_SCALE - 1, out=scaled)
    return scaled.astype(np.int16)


class NotPackets(Exception):
    """The stream is none that ffmpeg writes: a defect of ours or of ffmpeg's."""


@dataclass(frozen=True, slots=True)
class Packet:
    """Samples that ffmpeg gave at once; `milliseconds` is the time of the first one."""

    milliseconds: int
    body: memoryview
    """A view of the memory that was fed; not copied."""


class PacketReader:
    """Takes the stream in pieces of any size."""

    def __init__(self) -> None:
        self._rest = b""
        self._cluster_ms = 0

    def feed(self, data: bytes) -> Iterator[Packet]:
        """Yield every packet that is complete; to be used up before the next call. Raises `NotPackets`."""
        buffer = self._rest + data if self._rest else data
        view, at = memoryview(buffer), 0
        while element := _element(buffer, at):
            name, start, size = element
            if name in _ENTERED:
                at = start
                continue
            if size > _LARGEST_ELEMENT:
                raise NotPackets(f"an element of {size} bytes")
            if start + size > len(buffer):
                break
            body = view[start : start + size]
            at = start + size
            if name == _CLUSTER_TIME:
                self._cluster_ms = int.from_bytes(body, "big")
            elif name in {_SIMPLE_BLOCK, _BLOCK}:
                yield Packet(self._cluster_ms + _time_of_block(body), body[_BLOCK_HEADER_BYTES:])
        self._rest = buffer[at:]


def first_moment(path: Path) -> float | None:
    """Return the earliest time in a file's first cluster, in seconds; None where there is none to be read.

    ffmpeg takes the earliest start of the tracks that it can decode, and this worker lets it decode no video: so a film
    whose sound starts late would lose the difference.
    """
    scale, cluster_time, earliest = 1_000_000, 0, None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for name, start, size in islice(_elements_of(content), _MOST_ELEMENTS):
            body = content[start : start + min(size, _MOST_NUMBER_BYTES)]
            if name == _CLUSTER and earliest is not None:
                break
            if name == _SCALE:
                scale = int.from_bytes(body, "big")
            elif name == _CLUSTER_TIME:
                cluster_time = int.from_bytes(body, "big")
            elif name in {_BLOCK, _SIMPLE_BLOCK}:
                time = cluster_time + _time_of_block(body)
                earliest = time if earliest is None else min(earliest, time)
    return None if earliest is None else earliest * scale / _NANOSECONDS


def _elements_of(content: mmap.mmap) -> Iterator[tuple[int, int, int]]:
    """Yield the elements of a file and those within them, up to one that is not all there or of unknown size."""
    at = 0
    try:
        while element := _element(content, at):
            name, start, size = element
            at = start if name in _ENTERED else start + size
            if at > len(content):
                return
            yield element
    except NotPackets:
        return


def _time_of_block(body: bytes | memoryview) -> int:
    """Return the time that follows the number of the track, of variable length."""
    length = 9 - int.from_bytes(body[:1], "big").bit_length()
    return int.from_bytes(body[length : length + 2], "big", signed=True)


def _element(buffer: bytes | mmap.mmap, at: int) -> tuple[int, int, int] | None:
    """Return id, start of the body and size of the element at `at`; None where its header is not complete."""
    if (name := _number(buffer, at, keep_marker=True)) is None:
        return None
    if (size := _number(buffer, at + name[1], keep_marker=False)) is None:
        return None
    return name[0], at + name[1] + size[1], size[0]


def _number(buffer: bytes | mmap.mmap, at: int, *, keep_marker: bool) -> tuple[int, int] | None:
    """Return a variable-length number and its length in bytes."""
    if at >= len(buffer):
        return None
    length = 9 - buffer[at].bit_length()
    if length > _MOST_NUMBER_BYTES:
        raise NotPackets("a number of more than 8 bytes")
    if at + length > len(buffer):
        return None
    value = int.from_bytes(buffer[at : at + length], "big")
    return (value if keep_marker else value & ((1 << 7 * length) - 1)), length
