"""A QuickTime file whose samples lie in another file: the alias record of old Macs, byte by byte."""

import struct
from collections.abc import Sequence
from pathlib import Path

_ABSOLUTE_PATH, _END = 2, 0xFFFF


def with_external_samples(movie: bytes, target: Path) -> bytes:
    """Make the audio track's data reference name `target`. The index must follow the samples."""
    reference = struct.pack(">II", 0, 1) + _box(b"alis", _alias(target))
    return _replaced(movie, (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"), reference)


def _alias(target: Path) -> bytes:
    path = str(target).encode()
    path += bytes(len(path) % 2)
    fixed = struct.pack(">I", 0) + bytes(10) + bytes(28) + bytes(12) + bytes(64) + bytes(16)
    levels = struct.pack(">HH", 1, 1) + bytes(16)
    return fixed + levels + struct.pack(">HH", _ABSOLUTE_PATH, len(path)) + path + struct.pack(">HH", _END, 0)


def _replaced(boxes: bytes, way: Sequence[bytes], payload: bytes) -> bytes:
    """`boxes` with the body of the box at the end of `way` replaced, and the sizes around it corrected."""
    result, at = b"", 0
    while at < len(boxes):
        size, kind = struct.unpack_from(">I4s", boxes, at)
        body = boxes[at + 8 : at + size]
        if kind == way[0]:
            body = _replaced(body, way[1:], payload) if way[1:] else payload
        result += _box(kind, body)
        at += size
    return result


def _box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body) + 8, kind) + body
