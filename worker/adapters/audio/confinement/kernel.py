"""The mechanisms of the kernel that confine a process."""

import contextlib
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from worker.adapters.audio.confinement import landlock, seccomp
from worker.adapters.audio.confinement.calls import demand, libc
from worker.adapters.audio.confinement.syscalls import ARCHITECTURES, Architecture
from worker.adapters.audio.confinement.thread import in_own_thread

_PR_SET_NO_NEW_PRIVS = 38


@dataclass(frozen=True, kw_only=True, slots=True)
class Kernel:
    """The available mechanisms that confine a process."""

    landlock_abi: int
    """Version of Landlock; 0 where there is none. 4 restricts TCP, 6 signals and abstract sockets."""
    seccomp: Architecture | None
    """Layout of system call filters on this machine; None if filters are not supported."""

    @classmethod
    def here(cls) -> Self:
        """Try what the running kernel offers, in threads that end again. What a container refuses counts as lacking."""
        if not can_confine():
            return cls(landlock_abi=0, seccomp=None)
        abi = landlock.version()
        numbered = ARCHITECTURES.get(platform.machine()) if sys.maxsize > 1 << 32 else None
        restricts = abi > 0 and _works(lambda: landlock.restrict(abi, {}))
        filters = numbered is not None and _works(lambda: _start_under_a_filter(numbered))
        return cls(landlock_abi=abi if restricts else 0, seccomp=numbered if filters else None)


def can_confine() -> bool:
    """Return whether this is a Linux with a C library to call."""
    return sys.platform == "linux" and libc() is not None


def renounce_privileges() -> None:
    """Set no-new-privs for the calling thread and what it starts. Raises OSError."""
    demand("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _start_under_a_filter(architecture: Architecture) -> None:
    """Raise OSError where the filter cannot be installed, or refuses the start of a program to this process as well."""
    gate = seccomp.install(architecture, is_script=False)
    with contextlib.suppress(NotADirectoryError):  # it got as far as the program, which there is not
        subprocess.Popen([f"{os.devnull}/program"])
    if gate is not None:
        os.close(gate)


def _works(restriction: Callable[[], None]) -> bool:
    def rehearse() -> None:
        renounce_privileges()
        restriction()

    try:
        in_own_thread(rehearse)
    except OSError:
        return False
    return True
