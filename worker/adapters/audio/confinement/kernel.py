"""What the kernel offers to confine a process with, and the calls for it that Python lacks."""

import ctypes
import functools
import os
import platform
import sys
from dataclasses import dataclass
from typing import Self

from worker.adapters.audio.confinement.syscalls import ARCHITECTURES, Architecture

_CREATE_RULESET = 444  # landlock_create_ruleset; the number is the same on all architectures
_VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION
_PR_GET_SECCOMP = 21
_FUNCTION_BYTES = 64
"""The functions around one system call are shorter; the call itself is among their first instructions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kernel:
    """What there is to confine a process with."""

    landlock_abi: int
    """Version of Landlock; 0 where there is none. 4 restricts TCP, 6 signals and abstract sockets."""
    seccomp: Architecture | None
    """How to write a filter of system calls; None where there can be none."""

    @classmethod
    def here(cls) -> Self:
        """Ask the running kernel. A container's own filter that refuses the question counts as a no."""
        if sys.platform != "linux" or libc() is None:
            return cls(landlock_abi=0, seccomp=None)
        numbered = ARCHITECTURES.get(platform.machine()) if sys.maxsize > 1 << 32 else None
        filters = call("prctl", _PR_GET_SECCOMP, 0, 0, 0, 0) >= 0
        abi = call("syscall", _CREATE_RULESET, 0, 0, _VERSION)
        return cls(landlock_abi=max(0, abi), seccomp=numbered if filters else None)


@functools.cache
def libc() -> ctypes.CDLL | None:
    """The C library of this process; None where it cannot be called, as in a Python that is linked statically."""
    try:
        library = ctypes.CDLL(None, use_errno=True)
        for name in ("syscall", "prctl", "vfork", "execve"):
            getattr(library, name)
    except (OSError, AttributeError, TypeError):
        return None
    library.syscall.restype = ctypes.c_long
    return library


def call(function: str, *arguments: int | ctypes.Array[ctypes.c_char]) -> int:
    """Call a function of the C library with integers and buffers; -1 for a failure, `ctypes.get_errno()` says why."""
    library = libc()
    assert library is not None  # noqa: S101  # `Kernel.here` has seen to it
    converted = (ctypes.c_long(each) if isinstance(each, int) else each for each in arguments)
    return int(getattr(library, function)(*converted))


def demand(function: str, *arguments: int | ctypes.Array[ctypes.c_char]) -> int:
    """Call and return the result. Raises OSError."""
    result = call(function, *arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}{arguments[:1]}: {os.strerror(number)}")
    return result


def code_of(function: str) -> range:
    """The addresses of a C function's first instructions in this process."""
    begin = ctypes.cast(getattr(libc(), function), ctypes.c_void_p).value or 0
    return range(begin, begin + _FUNCTION_BYTES)
