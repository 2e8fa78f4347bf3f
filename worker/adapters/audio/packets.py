"""Samples with their times, as ffmpeg's Matroska writer streams them into a pipe.

Raw samples in a pipe carry no times, and Matroska is the simplest of the formats that do: elements of an id, a size and
a body, and blocks of samples timed in milliseconds. Only what that writer puts into a stream of one PCM track is read.
"""

from collections.abc import Iterator
from dataclasses import dataclass

_SEGMENT, _CLUSTER, _CLUSTER_TIME = 0x18538067, 0x1F43B675, 0xE7
_BLOCK_GROUP, _BLOCK, _SIMPLE_BLOCK = 0xA0, 0xA1, 0xA3
_ENTERED = frozenset({_SEGMENT, _CLUSTER, _BLOCK_GROUP})
"""Elements whose bodies are elements; their sizes do not matter, and may be unknown in a stream."""
_BLOCK_HEADER_BYTES = 4  # track, time (two bytes), flags
_LARGEST_ELEMENT = 64 << 20


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
                offset_ms = int.from_bytes(body[1:3], "big", signed=True)
                yield Packet(self._cluster_ms + offset_ms, body[_BLOCK_HEADER_BYTES:])
        self._rest = buffer[at:]


def _element(buffer: bytes, at: int) -> tuple[int, int, int] | None:
    """Return id, start of the body and size of the element at `at`; None where its header is not complete."""
    if (name := _number(buffer, at, keep_marker=True)) is None:
        return None
    if (size := _number(buffer, at + name[1], keep_marker=False)) is None:
        return None
    return name[0], at + name[1] + size[1], size[0]


def _number(buffer: bytes, at: int, *, keep_marker: bool) -> tuple[int, int] | None:
    """Return a variable-length number and its length in bytes."""
    if at >= len(buffer):
        return None
    length = 9 - buffer[at].bit_length()
    if length > 8:  # noqa: PLR2004 - the longest that the format knows
        raise NotPackets("a number of more than 8 bytes")
    if at + length > len(buffer):
        return None
    value = int.from_bytes(buffer[at : at + length], "big")
    return (value if keep_marker else value & ((1 << 7 * length) - 1)), length
