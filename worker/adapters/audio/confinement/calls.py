"""Calls into the C library for what Python lacks, and the thread to make those in that cannot be undone."""

import ctypes
import functools
import gc
import os
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_FUNCTION_BYTES = 64
"""The functions around one system call are shorter; the call itself is among their first instructions."""
_COLLECTION_OFF = threading.Lock()


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


def in_own_thread(task: Callable[[], T]) -> T:
    """Run the task in a thread of its own and wait for it. Returns its result. Raises the OSError that it raises.

    Linux keeps restrictions for each thread, and this one ends after its task.
    No garbage is collected meanwhile: a restricted thread must not run others' finalizers, which may need what it
    lacks, or start threads that would lack it for good.
    """
    outcome: list[T | OSError] = []

    def run() -> None:
        try:
            outcome.append(task())
        except OSError as exc:
            outcome.append(exc)

    thread = threading.Thread(target=run, name="confined")
    with _COLLECTION_OFF:
        collects = gc.isenabled()
        gc.disable()
        try:
            thread.start()
            thread.join()
        finally:
            if collects:
                gc.enable()
    (result,) = outcome
    if isinstance(result, OSError):
        raise result
    return result
