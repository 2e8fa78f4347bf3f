"""What ffmpeg does not notice in an Ogg file: its early end, and where a chain goes on with other channels (RFC 3533).

A chained file is several files behind each other; radio stations and joined recordings are.
"""

import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_PAGE_BYTES_MAX = 27 + 255 + 255 * 255
_HEADER_TYPE, _SEGMENT_COUNT, _SEGMENT_TABLE = 5, 26, 27
_BEGIN_OF_STREAM, _END_OF_STREAM = 0x02, 0x04
_STEP_BYTES = 1 << 16
_OPUS_HEAD, _VORBIS_HEAD = slice(0, 10), slice(0, 16)


def ends_early(path: Path) -> bool:
    """True unless the file's last page is whole and marked as the end of its stream; zeros behind it do not count."""
    with path.open("rb") as file:
        end = _end_of_content(file)
        file.seek(max(0, end - 2 * _PAGE_BYTES_MAX))
        tail = file.read(3 * _PAGE_BYTES_MAX)
    page = tail[tail.rfind(b"OggS") :]
    if len(page) <= _SEGMENT_COUNT or not page[_HEADER_TYPE] & _END_OF_STREAM:
        return True
    body = _SEGMENT_TABLE + page[_SEGMENT_COUNT]
    return len(page) < body + sum(page[_SEGMENT_TABLE:body])


def changes(path: Path) -> list[int]:
    """Return the offsets at which a chain goes on in another format, and 0 as the first. Reads the whole file."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        found: list[int] = []
        format_before: tuple[bytes, ...] | None = None
        for link in _links(content):
            if link.format != format_before:
                found.append(link.start)
                format_before = link.format
    return found or [0]


@dataclass(slots=True)
class _Link:
    start: int
    format: tuple[bytes, ...]
    """Of each of its streams, the part of its first packet that says how it is coded."""


def _links(content: mmap.mmap) -> Iterator[_Link]:
    """Yield each link of the chain: it starts with the first pages of all its streams."""
    link: _Link | None = None
    for at, is_first, body in _pages(content):
        if not is_first:
            if link is not None:
                yield link
            link = None
        elif link is None:
            link = _Link(at, (_format(body),))
        else:
            link.format += (_format(body),)


def _pages(content: mmap.mmap) -> Iterator[tuple[int, bool, bytes]]:
    """Yield offset, whether a stream begins, and for those the body; bytes that are no page are passed over."""
    at = content.find(b"OggS")
    while 0 <= at < len(content) - _SEGMENT_TABLE:
        body = at + _SEGMENT_TABLE + content[at + _SEGMENT_COUNT]
        following = body + sum(content[at + _SEGMENT_TABLE : body])
        is_first = bool(content[at + _HEADER_TYPE] & _BEGIN_OF_STREAM)
        yield at, is_first, content[body:following] if is_first else b""
        at = following if content[following : following + 4] == b"OggS" else content.find(b"OggS", at + 4)


def _format(packet: bytes) -> bytes:
    if packet.startswith(b"OpusHead"):
        return packet[_OPUS_HEAD]  # always 48 kHz; behind it the delay, which may differ
    if packet.startswith(b"\x7fFLAC"):
        return packet[:5] + packet[27:30]  # rate, channels, and the first bits of a sample
    return packet[_VORBIS_HEAD]


def _end_of_content(file: BinaryIO) -> int:
    """Return the offset behind the last byte that is not zero."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - _STEP_BYTES)
        file.seek(start)
        content = file.read(end - start).rstrip(b"\0")
        if content:
            return start + len(content)
        end = start
    return 0
