"""Folder of this process for downloads, removed at its end, or by the next process that starts.

A folder belongs to the process that holds the lock on it. Names and process ids do not identify the owner: two
containers that share TEMP_DIR may have the same.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from worker.errors import MachineFault

PREFIX = "klipstream-worker-"
UNLOCKED_PREFIX = "new-klipstream-worker-"
"""Until its lock is held a folder has a name that no other worker looks for."""

log = structlog.get_logger()


@contextmanager
def workspace(parent: Path) -> Iterator[Path]:
    """Make a new folder below `parent`, and remove those that killed workers left there.

    Raises `MachineFault` where `parent` is missing or takes no files.
    """
    try:
        _remove_leftovers(parent)
        made = Path(tempfile.mkdtemp(prefix=UNLOCKED_PREFIX, dir=parent))
        lock = os.open(made, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = made.rename(parent / made.name.removeprefix("new-"))
    except OSError as exc:
        raise MachineFault("TEMP_DIR", f"{exc}: create {parent}, free it, or correct TEMP_DIR") from exc
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _remove_leftovers(parent: Path) -> None:
    for folder in parent.glob(f"{PREFIX}*"):
        if _is_abandoned(folder):
            log.info("workspace.leftover_removed", folder=str(folder))
            shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    """Return True where no living process holds the folder's lock."""
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # removed at this moment, or not ours
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True
