"""`Confinement`: what a decoder may do on this kernel, how a thread takes it on, and what is left open."""

import contextlib
import ctypes
import os
import platform
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

from worker.adapters.audio.confinement import landlock, seccomp
from worker.adapters.audio.confinement.calls import demand, in_own_thread, libc
from worker.adapters.audio.confinement.program import Program
from worker.adapters.audio.confinement.seccomp import ARCHITECTURES, Architecture

_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522
_NO_CAPABILITIES = bytes(24)
_NOWHERE = Path(os.devnull)


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
        if not _can_confine():
            return cls(landlock_abi=0, seccomp=None)
        abi = landlock.version()
        numbered = ARCHITECTURES.get(platform.machine()) if sys.maxsize > 1 << 32 else None
        restricts = abi > 0 and _works(lambda: landlock.restrict(abi, {}))
        filters = numbered is not None and _works(lambda: _start_under_a_filter(numbered))
        return cls(landlock_abi=abi if restricts else 0, seccomp=numbered if filters else None)


@dataclass(frozen=True, kw_only=True)
class Confinement:
    """Limits of the decoder at `path`, by the mechanisms that `kernel` offers.

    The decoder inherits its input as an open descriptor; it may open only its own program files.
    """

    path: Path
    kernel: Kernel

    @cached_property
    def program(self) -> Program:
        """The decoder. Raises OSError."""
        return Program.at(self.path)

    def prepare(self) -> None:
        """Do once what `take_on` would otherwise do in a confined thread. Raises OSError."""
        if _can_confine():
            _ = self.program

    def take_on(self) -> int | None:
        """Confine the calling thread, and with it the processes it starts, for good. Raises OSError.

        Returns the descriptor of a gate, see `seccomp.install`, or None: the caller closes it to let the program begin.

        Linux keeps capabilities, Landlock's domain and the filter for each thread: the other threads of this process
        stay free, and between fork and exec there is nothing left to do.
        """
        if not _can_confine():
            return None
        program = self.program
        _renounce_privileges()
        if self.kernel.landlock_abi:
            landlock.restrict(self.kernel.landlock_abi, dict(_rules(program)))
        _drop_capabilities()
        if self.kernel.seccomp:  # the last one: it refuses the calls above
            return seccomp.install(self.kernel.seccomp, is_script=program.is_script)
        return None

    def gaps(self) -> tuple[str, ...]:
        """Say what a decoder taken over by a file could still do here, each with the cause. Raises OSError."""
        return tuple(self._gaps())

    def _gaps(self) -> Iterator[str]:
        abi, filtered = self.kernel.landlock_abi, self.kernel.seccomp is not None
        is_script = (abi > 0 or filtered) and self.program.is_script
        if not abi:
            as_root = sys.platform == "linux" and os.geteuid() == 0
            readable = "other jobs' audio and the worker's memory" if as_root else "other jobs' audio"
            yield f"read what the worker's user may read, {readable} too (the kernel has no Landlock)"
        if not abi and (is_script or not filtered):
            yield "write files (the kernel has no Landlock)"
        if not filtered:
            sockets = "open sockets other than TCP" if abi >= landlock.TCP_SINCE else "open sockets"
            yield f"{sockets}, start processes, change files' modes, take uncounted memory (there is no seccomp filter)"
        if not filtered and abi < landlock.SCOPES_SINCE:
            yield "signal the worker (there is no seccomp filter, and Landlock's version is below 6)"
        if is_script:
            script = f"{self.path} is a script, and what it starts must lie below /usr or /opt"
            yield f"start the system's programs ({script}: better put that ffmpeg itself on PATH)"


def _rules(program: Program) -> Iterator[tuple[Path, int]]:
    for path in program.files:
        yield path, landlock.EXECUTE | landlock.READ_FILE | landlock.READ_DIR
    if program.is_script:
        yield _NOWHERE, landlock.READ_FILE | landlock.WRITE_FILE


def _drop_capabilities() -> None:
    """Matters where the worker runs as root: its decoder then is root in name only."""
    header = struct.pack("@Ii", _CAPABILITY_VERSION_3, 0)
    demand(
        "capset",
        ctypes.create_string_buffer(header, len(header)),
        ctypes.create_string_buffer(_NO_CAPABILITIES, len(_NO_CAPABILITIES)),
    )


def _can_confine() -> bool:
    """Return whether this is a Linux with a C library to call."""
    return sys.platform == "linux" and libc() is not None


def _renounce_privileges() -> None:
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
        _renounce_privileges()
        restriction()

    try:
        in_own_thread(rehearse)
    except OSError:
        return False
    return True
