"""The file of a download that may be resumed: counted, summed, and removed when it is discarded."""

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import google_crc32c

from worker.ports import ObjectFacts


class DamagedDownload(Exception):
    """The bytes received so far do not match the object's facts."""


class PartialFile:
    """Takes the bytes of one generation of an object, over as many transfers as it needs.

    Bytes are written from one thread at a time; `discard` may come from another.
    """

    def __init__(self, path: Path, facts: ObjectFacts) -> None:
        self.facts = facts
        self._path = path
        self._file: BinaryIO | None = None
        self._discarded = False
        self._received_bytes, self._crc32c = 0, 0
        self._lock = threading.Lock()

    @contextmanager
    def filling(self) -> Iterator[int]:
        """Open one transfer that resumes at the current offset, and yield that offset.

        Raises `FileExistsError` when the path is taken, `DamagedDownload` when the whole is not what was promised
        (with a wrong checksum, the next transfer begins at 0).
        """
        with self._lock:
            self._open()
        yield self._received_bytes
        with self._lock:
            self._finish()

    def write(self, data: bytes) -> int:
        """Append. Raises `DamagedDownload` as soon as there is too much, and after `discard`."""
        with self._lock:
            file = self._open()
            if self._received_bytes + len(data) > self.facts.size_bytes:
                self._restart()
                raise DamagedDownload(f"more than {self.facts.size_bytes} bytes came")
            self._received_bytes += len(data)
            self._crc32c = google_crc32c.extend(self._crc32c, data)
            return file.write(data)

    def discard(self) -> None:
        """Remove the file; a running transfer fails at its next write."""
        with self._lock:
            self._discarded = True
            if self._file is not None:
                self._file.close()
                self._path.unlink(missing_ok=True)

    def _open(self) -> BinaryIO:
        if self._discarded:
            raise DamagedDownload("the download was given up")
        if self._file is None:
            self._file = self._path.open("xb")
        return self._file

    def _finish(self) -> None:
        file = self._open()
        if self._received_bytes < self.facts.size_bytes:
            raise DamagedDownload(f"{self._received_bytes} of {self.facts.size_bytes} bytes came")
        found = base64.b64encode(self._crc32c.to_bytes(4, "big")).decode()
        if found != self.facts.crc32c:
            self._restart()
            raise DamagedDownload(f"crc32c is {found}, not {self.facts.crc32c}")
        file.close()

    def _restart(self) -> None:
        file = self._open()
        file.seek(0)
        file.truncate()
        self._received_bytes, self._crc32c = 0, 0
