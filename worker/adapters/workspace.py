"""A folder of this process's own for downloads, gone when the process is: at its end, or when the next one starts.

A folder belongs to whoever holds the lock on the file in it. Names and process ids cannot tell: two containers that
share TEMP_DIR may have the same.
"""

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import structlog

from worker.errors import MachineFault

PREFIX = "klipstream-worker-"
LOCK = ".in-use"

log = structlog.get_logger()


@contextmanager
def workspace(parent: Path) -> Iterator[Path]:
    """Make a new folder below `parent`, and remove those that killed workers left there.

    Raises `MachineFault` where `parent` is missing or takes no files.
    """
    try:
        _remove_leftovers(parent)
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        lock = (folder / LOCK).open("wb")
    except OSError as exc:
        raise MachineFault("TEMP_DIR", f"{exc}: create {parent}, free it, or correct TEMP_DIR") from exc
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_leftovers(parent: Path) -> None:
    for folder in parent.glob(f"{PREFIX}*"):
        try:
            with (folder / LOCK).open("r+b") as lock:
                if not _takes(lock):
                    continue
        except OSError:  # being made or removed at this moment, or not ours
            continue
        log.info("workspace.leftover_removed", folder=str(folder))
        shutil.rmtree(folder, ignore_errors=True)


def _takes(lock: IO[bytes]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
