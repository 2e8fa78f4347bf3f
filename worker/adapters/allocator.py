"""How glibc's malloc keeps freed memory; other C libraries have their own ways and are left alone."""

import ctypes
import sys

_M_MMAP_THRESHOLD = -3
_LARGE_BYTES = 1 << 20


def return_large_blocks() -> None:
    """From now on a freed block of 1 MiB or more goes back to the system at once.

    Left alone, glibc takes the first chunk of audio that is freed (19 MB for 10 minutes) as the size from which on
    blocks are returned. Later chunks then lie in the heap, and small objects settle in the holes they leave: measured
    on a file of 3 hours, 200 MiB at the peak and rising, where it is now 132 and flat.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "gnu_get_libc_version"):
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
