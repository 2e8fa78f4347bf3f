"""Facts of an Ogg file that ffmpeg does not report: an early end, and the links of a chain (RFC 3533).

A chained file is several files behind each other; radio stations and joined recordings are.
"""

import mmap
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from worker.adapters.audio.command import ByteRange

_MARK = b"OggS"
_PAGE_BYTES_MAX = 27 + 255 + 255 * 255
_HEADER_TYPE, _SEGMENT_COUNT, _SEGMENT_TABLE = 5, 26, 27
_BEGIN_OF_STREAM, _END_OF_STREAM = 0x02, 0x04
_STEP_BYTES = 1 << 16
_MOST_PAGES, _MOST_REPEATS, _MOST_SEARCHED_BYTES = 1_000_000, 1_000, 1 << 28


def ends_early(path: Path) -> bool:
    """Return False if the last page is whole and marked as the end of its stream, ignoring zeros behind it."""
    with path.open("rb") as file:
        end = _end_of_content(file)
        file.seek(max(0, end - 2 * _PAGE_BYTES_MAX))
        tail = file.read(3 * _PAGE_BYTES_MAX)
    page = tail[tail.rfind(_MARK) :]
    if len(page) <= _SEGMENT_COUNT or not page[_HEADER_TYPE] & _END_OF_STREAM:
        return True
    body = _SEGMENT_TABLE + page[_SEGMENT_COUNT]
    return len(page) < body + sum(page[_SEGMENT_TABLE:body])


def links(path: Path) -> list[int]:
    """Return where each link of a chain begins: with the first pages of all its streams. Reads the whole file."""
    found: list[int] = []
    was_first = False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for at, _, is_first in _pages(content):
            if is_first and not was_first:
                found.append(at)
            was_first = is_first
    return found or [0]


def is_spoilt(path: Path) -> bool:
    """Return True where bytes that are not zero lie between the pages or behind them. Reads the whole file."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        behind = 0
        for at, end, _ in _pages(content):
            if content[behind:at].strip(b"\0"):
                return True
            behind = end
        return bool(content[behind:].strip(b"\0"))


def lacks_pages(path: Path) -> bool:
    """Return True where the numbers of a stream's pages leave some out. Reads the whole file."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        following: dict[bytes, int] = {}
        for at, _, is_first in _pages(content):
            stream, number = _place(content, at)
            if not is_first and number > following.get(stream, number):
                return True
            following[stream] = number + 1
        return False


def without_repeats(path: Path) -> tuple[ByteRange, ...]:
    """Return the bytes of an Ogg file but for pages that came before, as a resumed download leaves; () where none did.

    Reads the headers of the pages.
    """
    kept: list[ByteRange] = []
    begin, budget = 0, _MOST_SEARCHED_BYTES
    following: dict[bytes, int] = {}
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        pages = _pages(content) if content[: len(_MARK)] == _MARK else iter(())
        for at, end, is_first in islice(pages, _MOST_PAGES):
            stream, number = _place(content, at)
            if not is_first and number < following.get(stream, 0) and len(kept) < _MOST_REPEATS:
                since = max(0, at - budget)
                before = content.rfind(content[at:end], since, at)
                budget -= at - max(before, since)
                if before >= 0:
                    kept += [ByteRange(start=begin, end=at)] if at > begin else []
                    begin = end
                    continue
            following[stream] = number + 1
        rest = [ByteRange(start=begin, end=None)] if begin < len(content) else []
    return (*kept, *rest) if kept else ()


def _place(content: mmap.mmap, at: int) -> tuple[bytes, int]:
    """Return the serial number of a page's stream, and its own number in that."""
    return content[at + 14 : at + 18], int.from_bytes(content[at + 18 : at + 22], "little")


def _pages(content: mmap.mmap) -> Iterator[tuple[int, int, bool]]:
    """Yield start and end of each page, and whether a stream begins there; bytes that are no page are passed over."""
    at = content.find(_MARK)
    while 0 <= at < len(content) - _SEGMENT_TABLE:
        body = at + _SEGMENT_TABLE + content[at + _SEGMENT_COUNT]
        following = body + sum(content[at + _SEGMENT_TABLE : body])
        yield at, following, bool(content[at + _HEADER_TYPE] & _BEGIN_OF_STREAM)
        at = following if content[following : following + len(_MARK)] == _MARK else content.find(_MARK, at + len(_MARK))


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
