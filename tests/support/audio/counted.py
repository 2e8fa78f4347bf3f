"""ffmpeg behind a script that counts how often it is started with some words among its arguments."""

from dataclasses import dataclass
from pathlib import Path

from worker.adapters.audio import Kernel

UNCONFINED = Kernel(landlock_abi=0, seccomp=None)
"""For the script, which makes folders."""


@dataclass(frozen=True, kw_only=True)
class CountedFfmpeg:
    """Each start with one of `words` is noted by a folder, since ffmpeg may write to no file."""

    folder: Path
    ffmpeg: Path
    words: tuple[str, ...]

    def __post_init__(self) -> None:
        patterns = "|".join(f"*'{word}'*" for word in self.words)
        note = f'case "$*" in {patterns}) mkdir {self.folder}/start-$$;; esac'
        self.path.write_text(f'#!/bin/sh\n{note}\nexec {self.ffmpeg} "$@"\n')
        self.path.chmod(0o755)

    @property
    def path(self) -> Path:
        return self.folder / "ffmpeg"

    @property
    def starts(self) -> int:
        return len(list(self.folder.glob("start-*")))
