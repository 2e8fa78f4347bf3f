"""The program to confine: which files it must open to start at all, by how it is linked."""

import re
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

_ELF = b"\x7fELF\x02\x01"  # 64 bits, little-endian
_INTERPRETER = 3  # PT_INTERP
_LIBRARY = re.compile(rb"(?:=> |\t)(/.*) \(0x[0-9a-f]+\)")
_LOADER_SECONDS = 10.0
_ALL_READ = (
    Path("/dev/urandom"),  # C++ libraries, before their program begins
    *map(Path, ("/etc/ld.so.cache", "/etc/ld-musl-x86_64.path", "/etc/ld-musl-aarch64.path")),
)
SYSTEM = tuple(map(Path, ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/usr", "/opt", "/nix")))
"""Folders of programs and their libraries."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """A program; `files` are those that it must read to start; a folder includes its whole content."""

    path: Path
    files: tuple[Path, ...]
    is_script: bool = False
    """No ELF file of 64 bits: it starts other programs, and which is not known."""

    @classmethod
    def at(cls, path: Path) -> Self:
        """Look into the file; the loader of a dynamic one is run to list its libraries (2 ms). Raises OSError."""
        with path.open("rb") as file:
            if file.read(len(_ELF)) != _ELF:
                return cls(path=path, files=(path, *SYSTEM, *_ALL_READ), is_script=True)
            loader = _loader(file)
        if loader is None:  # linked statically
            return cls(path=path, files=(path, *_ALL_READ))
        return cls(path=path, files=(path, loader, *(_libraries(loader, path) or SYSTEM), *_ALL_READ))


def _loader(file: BinaryIO) -> Path | None:
    """Return the dynamic loader that the ELF file names; None for a static program."""
    file.seek(0)
    header = file.read(64)
    (table,) = struct.unpack_from("<Q", header, 32)
    entry_bytes, entries = struct.unpack_from("<HH", header, 54)
    file.seek(table)
    segments = file.read(entry_bytes * entries)
    for begin in range(0, len(segments), entry_bytes):
        kind, _, offset, _, _, size = struct.unpack_from("<IIQQQQ", segments, begin)
        if kind == _INTERPRETER:
            file.seek(offset)
            return Path(file.read(size).rstrip(b"\0").decode())
    return None


def _libraries(loader: Path, program: Path) -> tuple[Path, ...]:
    """Return all that the loader would load; nothing where it cannot say, as a loader without `--list`."""
    try:
        listed = subprocess.run(
            [loader, "--list", program],
            env={"LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=_LOADER_SECONDS,
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(Path(found.decode()) for found in _LIBRARY.findall(listed.stdout))
