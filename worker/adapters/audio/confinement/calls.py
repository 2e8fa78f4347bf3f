"""Calls into the C library for what Python lacks."""

import ctypes
import functools
import os

_FUNCTION_BYTES = 64
"""The functions around one system call are shorter; the call itself is among their first instructions."""


@functools.cache
def libc() -> ctypes.CDLL | None:
    """Return the C library of this process; None where it cannot be called, as in a statically linked Python."""
    for name in ("libc.so.6", None):  # by its own name first: a preloaded library may shadow its functions
        try:
            library = ctypes.CDLL(name, use_errno=True)
            for function in ("syscall", "prctl", "capset", "vfork", "execve"):
                getattr(library, function)
        except (OSError, AttributeError, TypeError):
            continue
        library.syscall.restype = ctypes.c_long
        return library
    return None


def call(function: str, *arguments: int | ctypes.Array[ctypes.c_char]) -> int:
    """Call a function of the C library. Returns -1 for a failure, and leaves the reason in `ctypes.get_errno`."""
    library = libc()
    assert library is not None  # noqa: S101  # `Kernel.here` has seen to that
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
    """Return the addresses of a C function's first instructions in this process."""
    begin = ctypes.cast(getattr(libc(), function), ctypes.c_void_p).value or 0
    return range(begin, begin + _FUNCTION_BYTES)
