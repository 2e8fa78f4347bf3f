"""The memory of this process: kept from other processes, and counted."""

import ctypes
import os
import sys
from pathlib import Path

_PR_SET_DUMPABLE = 4
_ROLLUP = Path("/proc/self/smaps_rollup")
_KIBIBYTE = 1024


def hide_memory() -> None:
    """Keep processes of the same user from reading this one's memory, environment and open files, on Linux.

    Debuggers, profilers and core dumps go without it too. No-op as root, from whom it would hide nothing.
    """
    if sys.platform == "linux" and os.geteuid() != 0:
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def held_bytes() -> int | None:
    """Return the proportional set size of this process in bytes; None on systems other than Linux.

    Other processes cannot read it once the memory is hidden.
    """
    try:
        lines = _ROLLUP.read_bytes().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * _KIBIBYTE for line in lines if line.startswith(b"Pss:")), None)
