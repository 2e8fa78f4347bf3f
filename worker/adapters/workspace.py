"""A folder of this process's own for downloads, gone when the process is: at its end, or when the next one starts."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

_NAME = re.compile(r"klipstream-worker-(\d+)")

log = structlog.get_logger()


@contextmanager
def workspace(parent: Path) -> Iterator[Path]:
    """A new folder below `parent`, which must exist. Removes those that killed workers left there first."""
    for leftover in _leftovers(parent):
        log.info("workspace.leftover_removed", folder=str(leftover))
        shutil.rmtree(leftover, ignore_errors=True)
    folder = parent / f"klipstream-worker-{os.getpid()}"
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _leftovers(parent: Path) -> list[Path]:
    named = ((path, _NAME.fullmatch(path.name)) for path in parent.iterdir())
    return [path for path, match in named if match and not _is_alive_elsewhere(int(match[1]))]


def _is_alive_elsewhere(pid: int) -> bool:
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
