"""Landlock: limits the calling thread, and every process that it starts, to a list of files.

See linux/landlock.h and docs.kernel.org/userspace-api/landlock.html. Of PyPI's four bindings (November 2026: landlock
1.0.0.dev5, landlockpy 0.2, py-landlock 0.1.1, sandlock 0.9 with 13 MB of Rust) none is both maintained and older than a
year, and three system calls are enough.
"""

import ctypes
import os
import struct
from collections.abc import Mapping
from pathlib import Path

from worker.adapters.audio.confinement.calls import call, demand

EXECUTE = 1 << 0
WRITE_FILE = 1 << 1
READ_FILE = 1 << 2
READ_DIR = 1 << 3

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION
_PATH_BENEATH = 1
_OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | 1 << 14 | 1 << 15  # truncation and ioctl too
# How many rights of files each version knows; all are taken away.
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_NEWEST_FILES = 16
TCP_SINCE, _TCP = 4, 0b11  # bind, connect
SCOPES_SINCE, _SCOPES = 6, 0b11  # abstract UNIX sockets, signals


def version() -> int:
    """Return the version of Landlock that the kernel has; 0 for none."""
    return max(0, call("syscall", _CREATE_RULESET, 0, 0, _VERSION))


def restrict(abi: int, rules: Mapping[Path, int]) -> None:
    """Take everything from this thread but the rights in `rules`, of a file or of all below a folder.

    What is open stays open. Paths that cannot be reached are left out. Needs no-new-privs. Raises OSError.
    """
    handled = (1 << _FILE_RIGHTS.get(abi, _NEWEST_FILES)) - 1
    tcp = _TCP if abi >= TCP_SINCE else 0
    scopes = _SCOPES if abi >= SCOPES_SINCE else 0
    attributes = struct.pack("=QQQ", handled, tcp, scopes)[: 8 if not tcp else 16 if not scopes else 24]
    ruleset = demand(
        "syscall", _CREATE_RULESET, ctypes.create_string_buffer(attributes, len(attributes)), len(attributes), 0
    )
    try:
        for path, rights in rules.items():
            _allow(ruleset, path, rights & handled)
        demand("syscall", _RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: Path, rights: int) -> None:
    try:
        target = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    try:
        if not path.is_dir():
            rights &= _OF_FILES
        rule = struct.pack("=Qi", rights, target)
        demand("syscall", _ADD_RULE, ruleset, _PATH_BENEATH, ctypes.create_string_buffer(rule, len(rule)), 0)
    finally:
        os.close(target)
