"""The `AudioDecoder` port on ffmpeg.

The operator needs an ffmpeg of version 8.1 or newer: that of the imageio-ffmpeg wheel (9.0.2), or the system's on PATH
where that is at least as new. ffprobe is not needed. On Linux every ffmpeg runs under resource limits and confined to
the file that it decodes, see `confinement`; elsewhere without either.
"""

from worker.adapters.audio.confinement import Confinement, Kernel
from worker.adapters.audio.decoder import FfmpegDecoder
from worker.adapters.audio.locate import OLDEST_SAFE, FfmpegMissing, ffmpeg_version, find_ffmpeg, is_too_old
from worker.adapters.audio.parts import PART_SECONDS
from worker.adapters.audio.process import Limits

__all__ = [
    "OLDEST_SAFE",
    "PART_SECONDS",
    "Confinement",
    "FfmpegDecoder",
    "FfmpegMissing",
    "Kernel",
    "Limits",
    "ffmpeg_version",
    "find_ffmpeg",
    "is_too_old",
]
