"""Detection of opened files by inotify, whichever process opens them."""

import ctypes
import os
from pathlib import Path
from types import TracebackType
from typing import Self

_IN_OPEN = 0x20
_EVENT_BYTES = 16 + 256


class OpenWatch:
    """Counts the opens of one file while the context lasts (Linux)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._libc = ctypes.CDLL(None, use_errno=True)

    def __enter__(self) -> Self:
        self._fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._libc.inotify_add_watch(self._fd, os.fsencode(self._path), _IN_OPEN) < 0:
            raise OSError(ctypes.get_errno(), "inotify_add_watch", str(self._path))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def opened(self) -> bool:
        """True where the file was opened since the last question."""
        try:
            return bool(os.read(self._fd, _EVENT_BYTES))
        except BlockingIOError:
            return False
