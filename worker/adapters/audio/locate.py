"""Which ffmpeg serves, and its version."""

import asyncio
import shutil
from pathlib import Path

import imageio_ffmpeg


class FfmpegMissing(RuntimeError):
    """There is no ffmpeg on this machine: a fault of the installation, found at start."""

    def __init__(self) -> None:
        super().__init__("no ffmpeg on PATH and none in the imageio-ffmpeg wheel: install one of the two")


def find_ffmpeg() -> Path:
    """The system's ffmpeg where PATH has one, else the one in the imageio-ffmpeg wheel. Raises `FfmpegMissing`."""
    if found := shutil.which("ffmpeg"):
        return Path(found)
    try:
        return Path(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as exc:
        raise FfmpegMissing from exc


async def ffmpeg_version(ffmpeg: Path) -> str:
    """What `ffmpeg -version` calls itself, such as `7.0.2-static`. Raises OSError where it cannot be started."""
    process = await asyncio.create_subprocess_exec(
        ffmpeg,
        "-version",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        env={"LC_ALL": "C"},  # no secret of the worker's
    )
    answer, _ = await process.communicate()
    return answer.decode("utf-8", "replace").removeprefix("ffmpeg version ").split(maxsplit=1)[0]
