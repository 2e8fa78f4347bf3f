"""The one container whose early end ffmpeg does not notice."""

import os
from pathlib import Path

_PAGE_BYTES_MAX = 27 + 255 + 255 * 255
_HEADER_TYPE, _SEGMENT_COUNT, _SEGMENT_TABLE = 5, 26, 27
_END_OF_STREAM = 0x04


def ends_early(path: Path) -> bool:
    """True unless the file's last page is whole and marked as the end of its stream (RFC 3533)."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 2 * _PAGE_BYTES_MAX))
        tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    if len(page) <= _SEGMENT_COUNT or not page[_HEADER_TYPE] & _END_OF_STREAM:
        return True
    body = _SEGMENT_TABLE + page[_SEGMENT_COUNT]
    return len(page) < body + sum(page[_SEGMENT_TABLE:body])
