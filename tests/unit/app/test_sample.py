from tests.support.audio.decoding import decode_all
from worker.adapters.audio import FfmpegDecoder, Limits, find_ffmpeg
from worker.app.sample import SPEECH
from worker.ports import SAMPLE_RATE_HZ


async def test_the_built_in_sample_is_a_small_file_of_20_to_25_seconds() -> None:
    decoder = FfmpegDecoder(ffmpeg=find_ffmpeg(), limits=Limits(max_seconds=60))

    decoded = await decode_all(decoder, SPEECH)

    assert SPEECH.stat().st_size <= 100_000
    assert 20 <= decoded.samples.size / SAMPLE_RATE_HZ <= 25
