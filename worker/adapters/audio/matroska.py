"""When a Matroska or WebM file begins.

ffmpeg takes the earliest start of the tracks that it can decode, and this worker lets it decode no video: so a film
whose sound starts late would lose the difference.
"""

import os
from pathlib import Path
from typing import BinaryIO

_SEGMENT, _INFO, _SCALE, _CLUSTER, _CLUSTER_TIME = 0x18538067, 0x1549A966, 0x2AD7B1, 0x1F43B675, 0xE7
_BLOCK_GROUP, _BLOCK, _SIMPLE_BLOCK = 0xA0, 0xA1, 0xA3
_ENTERED = frozenset({_SEGMENT, _INFO, _CLUSTER, _BLOCK_GROUP})
_MOST_ELEMENTS = 10_000
_MOST_NUMBER_BYTES = 8
_UNKNOWN_SIZES = frozenset((1 << 7 * length) - 1 for length in range(1, _MOST_NUMBER_BYTES + 1))
_NANOSECONDS = 1_000_000_000


def first_moment(path: Path) -> float | None:
    """Return the earliest time in the first cluster, in seconds; None where there is none to be read."""
    scale, cluster_time, earliest = 1_000_000, 0, None
    with path.open("rb") as file:
        length = file.seek(0, os.SEEK_END)
        file.seek(0)
        for _ in range(_MOST_ELEMENTS):
            if (name := _number(file, keep_marker=True)) is None or (size := _number(file, keep_marker=False)) is None:
                break
            if name == _CLUSTER and earliest is not None:
                break
            if name in _ENTERED:
                continue
            end = file.tell() + size
            if size in _UNKNOWN_SIZES or end > length:
                break
            if name == _SCALE:
                scale = int.from_bytes(file.read(min(size, _MOST_NUMBER_BYTES)), "big")
            elif name == _CLUSTER_TIME:
                cluster_time = int.from_bytes(file.read(min(size, _MOST_NUMBER_BYTES)), "big")
            elif name in {_BLOCK, _SIMPLE_BLOCK}:
                _number(file, keep_marker=False)  # the track
                time = cluster_time + int.from_bytes(file.read(2), "big", signed=True)
                earliest = time if earliest is None else min(earliest, time)
            file.seek(end)
    return None if earliest is None else earliest * scale / _NANOSECONDS


def _number(file: BinaryIO, *, keep_marker: bool) -> int | None:
    """Read a number of variable length; None at the end of the file, or where there is none."""
    first = file.read(1)
    if not first or first == b"\0":
        return None
    length = 9 - first[0].bit_length()
    rest = file.read(length - 1)
    if len(rest) < length - 1:
        return None
    value = int.from_bytes(first + rest, "big")
    return value if keep_marker else value & ((1 << 7 * length) - 1)
