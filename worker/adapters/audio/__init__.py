"""The `AudioDecoder` port on ffmpeg.

The operator needs an ffmpeg of version 5.1 or newer: the system's on PATH, else the one in the imageio-ffmpeg wheel
(7.0.2) serves. ffprobe is not needed. On Linux every ffmpeg runs under resource limits; elsewhere without them.
"""

from worker.adapters.audio.decoder import FfmpegDecoder
from worker.adapters.audio.locate import FfmpegMissing, ffmpeg_version, find_ffmpeg
from worker.adapters.audio.parts import PART_SECONDS
from worker.adapters.audio.process import Limits

__all__ = ["PART_SECONDS", "FfmpegDecoder", "FfmpegMissing", "Limits", "ffmpeg_version", "find_ffmpeg"]
