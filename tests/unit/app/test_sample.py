from pathlib import Path

from tests.support.audio.decoding import decode_all
from worker.adapters.audio import FfmpegDecoder, Limits, find_ffmpeg
from worker.app.sample import SPEECH
from worker.embedded.samples import samples
from worker.ports import SAMPLE_RATE_HZ, Pcm


async def decoded(path: Path) -> Pcm:
    return (await decode_all(FfmpegDecoder(ffmpeg=find_ffmpeg(), limits=Limits(max_seconds=600)), path)).samples


async def test_the_built_in_sample_is_a_small_file_of_20_to_25_seconds() -> None:
    assert SPEECH.stat().st_size <= 100_000
    assert 20 <= (await decoded(SPEECH)).size / SAMPLE_RATE_HZ <= 25


async def test_the_built_in_sample_is_the_beginning_of_a_conversation_sample_by_sample() -> None:
    sample, conversation = await decoded(SPEECH), await decoded(samples()[0].path)

    whole_frames = sample.size - SAMPLE_RATE_HZ // 2
    assert (sample[:whole_frames] == conversation[:whole_frames]).all()
