"""What a worker allocates does not grow with the length of the file. tests/bench/memory.py measures whole processes,
hours and a model.
"""

import tracemalloc
from pathlib import Path

from tests.support.long_audio import speech_file
from tests.support.worker import Cloud

CHUNK_MINUTES = 2


async def peak_bytes(cloud: Cloud, audio: Path) -> int:
    async with cloud.working(chunk_duration_minutes=CHUNK_MINUTES) as pipeline:
        uri = await pipeline.upload(audio, audio.name)
        tracemalloc.start()
        try:
            await pipeline.submit(uri, audio.stem)
            assert (await pipeline.ending(audio.stem)).completed.transcription_metadata.words_count > 100
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


async def test_a_file_of_20_minutes_takes_the_memory_of_one_that_fills_the_chunks_in_flight(
    cloud: Cloud, tmp_path: Path
) -> None:
    short = speech_file(4 * CHUNK_MINUTES * 60, tmp_path / "short.mp3")
    long = speech_file(20 * 60, tmp_path / "long.mp3")

    least, most = await peak_bytes(cloud, short), await peak_bytes(cloud, long)

    assert most < 1.2 * least
