"""This process on its machine: freed memory, memory kept from other processes, processors."""

import ctypes
import os
import sys

_M_MMAP_THRESHOLD = -3
_LARGE_BYTES = 1 << 20
_PR_SET_DUMPABLE = 4


def return_large_blocks() -> None:
    """From now on a freed block of 1 MiB or more goes back to the system at once.

    Left alone, glibc takes the first chunk of audio that is freed (19 MB for 10 minutes) as the size from which on
    blocks are returned. Later chunks then lie in the heap, and small objects settle in the holes they leave: a file of
    3 hours took 200 MiB at the peak and rising, instead of 132 and flat.
    """
    if (libc := _glibc()) is not None:
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def return_what_is_free() -> None:
    """Return free memory to the system, including small holes in the heap.

    For a process that allocates tensors of varying sizes: without this call its heap grew by 100 MiB and more in hours
    of windows, with it by 18 MiB. Returned pages cost time when they are used again, 45 ms a batch of the tiny model:
    do not call it after every batch. Returning large blocks as above cost half of the time.
    """
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "gnu_get_libc_version"):
        return libc
    return None


def hide_memory() -> None:
    """Keep processes of the same user from reading this one's memory, environment and open files, on Linux.

    Debuggers, profilers and core dumps go without it too. No-op as root, from whom it would hide nothing.
    """
    if sys.platform == "linux" and os.geteuid() != 0:
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def processors(most: float) -> int:
    """Return the number of processors the system allows this process, at most the instance's vCPUs."""
    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return min(allowed, int(most))
