"""Audio that was compressed for the way: `gsutil cp -Z` stores gzip data and says so, others upload a `.gz`.

Cloud Storage unpacks the former for readers that ask for it; the worker does not ask, since only the bytes as they are
stored have a checksum. So it unpacks both itself, which no audio format can be mistaken for.
"""

import asyncio
import gzip
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import structlog

from worker.errors import AudioTooLarge, AudioUndecodable

log = structlog.get_logger(__name__)

_MAGIC = b"\x1f\x8b\x08"
_BLOCK_BYTES = 4 << 20
MOST_LAYERS = 2
"""A `.gz` that was compressed once more for the way."""


async def unpacked(path: Path, *, max_bytes: int, take_room: Callable[[int], None]) -> Path:
    """Return the file itself, or what it unpacks to; then the packed one is gone.

    `take_room` is called before each block is written and may refuse it. Raises `AudioTooLarge` as soon as more than
    `max_bytes` come out, `AudioUndecodable` for damaged data.
    """
    for layer in range(1, MOST_LAYERS + 1):
        if not await asyncio.to_thread(_is_gzip, path):
            break
        inner = path.with_name(f"audio-{layer}")
        size_bytes = await _unpack(path, inner, max_bytes, take_room)
        log.info("audio.unpacked", bytes=size_bytes)
        await asyncio.to_thread(path.unlink)
        path = inner
    return path


async def _unpack(packed: Path, inner: Path, max_bytes: int, take_room: Callable[[int], None]) -> int:
    count = 0
    with inner.open("xb") as file, gzip.open(packed) as source:
        while block := await asyncio.to_thread(_read, source):
            count += len(block)
            if count > max_bytes:
                raise AudioTooLarge(count, max_bytes, unpacked=True)
            take_room(len(block))
            await asyncio.to_thread(file.write, block)
    return count


def _read(source: gzip.GzipFile | BinaryIO) -> bytes:
    try:
        return source.read(_BLOCK_BYTES)
    except (EOFError, gzip.BadGzipFile, zlib.error) as exc:
        raise AudioUndecodable(f"it is gzip data, and damaged: {exc}") from exc


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC
