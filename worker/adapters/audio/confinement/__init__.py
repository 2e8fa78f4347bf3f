"""A decoder that a file has taken over reaches nothing: no file but its own, no socket, no other process.

Linux only, by what the kernel offers: Landlock for files, a seccomp filter for everything else, no-new-privs, and no
capabilities. `Confinement.gaps` says what is missing where something is.
"""

from worker.adapters.audio.confinement.confinement import Confinement, Kernel

__all__ = ["Confinement", "Kernel"]
