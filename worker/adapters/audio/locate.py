"""Choice of ffmpeg, and its version."""

import asyncio
import re
import shutil
import subprocess
from pathlib import Path

import imageio_ffmpeg

OLDEST_SAFE = (8, 1)
"""Every release before it has a known out-of-bounds write in its MP4 reader (CVE-2026-40962)."""
UNKNOWN = "unknown version"

_SAID = re.compile(r"ffmpeg version (\S+)")
_RELEASE = re.compile(r"n?(\d+)\.(\d+)(?:\.(\d+))?")
_IN_NAME = re.compile(r"-v(\d+(?:\.\d+)+)(?:\.exe)?$")
_ANSWER_SECONDS = 30


class FfmpegMissing(RuntimeError):
    """There is no ffmpeg on this machine: a fault of the installation, found at start."""

    def __init__(self) -> None:
        super().__init__("no ffmpeg on PATH and none in the imageio-ffmpeg wheel: install one of the two")


def find_ffmpeg() -> Path:
    """Return the newer one of the system's ffmpeg on PATH and that of the imageio-ffmpeg wheel; where equal the first.

    A version that is no release, such as `N-118193-g5f38c82536` of a build from git, does not say how old it is: it
    serves where there is no other. Starts the system's ffmpeg, if any, for a moment. Raises `FfmpegMissing`.
    """
    system, bundled = shutil.which("ffmpeg"), _bundled()
    if bundled is None or system is None:
        found = bundled or system
        if found is None:
            raise FfmpegMissing
        return Path(found)
    in_name = _IN_NAME.search(bundled)  # which saves starting the wheel's binary
    ours = release_of(in_name[1]) if in_name else _release(bundled)
    return Path(system if (_release(system) or (0,)) >= (ours or (0,)) else bundled)


async def ffmpeg_version(ffmpeg: Path) -> str:
    """Return what `ffmpeg -version` calls itself, such as `7.0.2-static`; `UNKNOWN` where it does not say.

    Raises OSError where it cannot be started.
    """
    return await asyncio.to_thread(_ask, str(ffmpeg))


def release_of(version: str) -> tuple[int, ...] | None:
    """Return a version's numbers, for comparison; None where it is no release."""
    found = _RELEASE.match(version)
    return tuple(int(number or 0) for number in found.groups()) if found else None


def is_too_old(version: str) -> bool:
    """Return True unless the version is a release with the fixes of `OLDEST_SAFE`."""
    release = release_of(version)
    return release is None or release < OLDEST_SAFE


def _bundled() -> str | None:
    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError:
        return None


def _release(program: str) -> tuple[int, ...] | None:
    try:
        return release_of(_ask(program))
    except OSError:
        return None


def _ask(program: str) -> str:
    try:
        done = subprocess.run(
            [program, "-version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={"LC_ALL": "C"},  # no secret of the worker's
            timeout=_ANSWER_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return UNKNOWN
    found = _SAID.match(done.stdout.decode("utf-8", "replace"))
    return found[1] if found else UNKNOWN
