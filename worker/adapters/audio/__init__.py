"""The `AudioDecoder` port on ffmpeg.

The operator needs an ffmpeg of version 6.0 or newer: the system's on PATH, else the one in the imageio-ffmpeg wheel
(7.0.2) serves. ffprobe is not needed. On Linux every ffmpeg runs under resource limits and confined to the file that it
decodes, see `confinement`; elsewhere without either.
"""

from worker.adapters.audio.confinement import Confinement, Kernel
from worker.adapters.audio.decoder import FfmpegDecoder
from worker.adapters.audio.locate import FfmpegMissing, ffmpeg_version, find_ffmpeg
from worker.adapters.audio.parts import PART_SECONDS
from worker.adapters.audio.process import Limits

__all__ = [
    "PART_SECONDS",
    "Confinement",
    "FfmpegDecoder",
    "FfmpegMissing",
    "Kernel",
    "Limits",
    "ffmpeg_version",
    "find_ffmpeg",
]
