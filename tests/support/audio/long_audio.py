"""Speech of any length at next to no cost: one of the packaged samples again and again."""

import subprocess
from pathlib import Path

from worker.adapters.audio import find_ffmpeg
from worker.embedded.samples import samples

PIPELINE_MP3 = ("-ar", "8000", "-ac", "1", "-c:a", "libmp3lame", "-b:a", "32k")


def speech_file(seconds: float, path: Path) -> Path:
    """Write the pipeline's MP3 of that length, and return its path."""
    again = ("-stream_loop", "-1", "-i", str(samples()[0].path), "-t", str(seconds))
    command = [find_ffmpeg(), "-hide_banner", "-loglevel", "error", "-y", *again, *PIPELINE_MP3, str(path)]
    subprocess.run(command, check=True)
    return path


def stereo_file(seconds: float, path: Path) -> Path:
    """Write an MP3 of two samples, one a channel, and return its path."""
    inputs = [word for sample in samples()[:2] for word in ("-stream_loop", "-1", "-i", str(sample.path))]
    both = ("-filter_complex", "[0:a][1:a]amerge=inputs=2", "-t", str(seconds), "-ar", "16000", "-b:a", "96k")
    command = [find_ffmpeg(), "-hide_banner", "-loglevel", "error", "-y", *inputs, *both, str(path)]
    subprocess.run(command, check=True)
    return path
