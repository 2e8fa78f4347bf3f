"""The audio decoder that the settings ask for."""

from worker.adapters.audio import FfmpegDecoder, Limits, find_ffmpeg
from worker.adapters.machine.process import processors
from worker.core.jobs.routing import SECONDS_PER_HOUR
from worker.settings import EngineSettings, JobSettings


def make_decoder(jobs: JobSettings, engine: EngineSettings) -> FfmpegDecoder:
    """Return the decoder, with the length limit of the settings. Raises `FfmpegMissing`."""
    return FfmpegDecoder(
        ffmpeg=find_ffmpeg(),
        limits=Limits(max_seconds=jobs.max_audio_hours * SECONDS_PER_HOUR),
        parts=max(1, processors(engine.instance_vcpus) - 1),  # one is the event loop's
    )
