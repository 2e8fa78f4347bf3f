"""Allocations of the worker do not grow with the length of the file. bench/memory.py measures whole processes,
hours and a model.
"""

import tracemalloc
from pathlib import Path

import pytest

from tests.support.audio.long_audio import speech_file
from tests.support.workers.cloud import Cloud
from worker.ports import SAMPLE_RATE_HZ

CHUNK_MINUTES = 4
CHUNK_BYTES = CHUNK_MINUTES * 60 * SAMPLE_RATE_HZ * 2
CHUNKS_HELD = 3
"""Two in flight, one that is being filled."""
REST_BYTES = 8 << 20
"""Memory of any job besides its chunks: asyncio holds twice the decoder's buffer of 1 MiB, and briefly more while a
buffer grows or a chunk is planned. A fourth chunk of 7.3 MiB would exceed the limit."""

pytestmark = pytest.mark.alone


async def test_a_long_file_takes_the_memory_of_the_chunks_in_flight(cloud: Cloud, tmp_path: Path) -> None:
    audio = speech_file(20 * 60, tmp_path / "long.mp3")
    async with cloud.working(chunk_duration_minutes=CHUNK_MINUTES, chunks_in_flight=2) as pipeline:
        await pipeline.submit(await pipeline.upload(speech_file(10, tmp_path / "short.mp3")), "before")
        await pipeline.ending("before")  # what is imported only then is imported now
        uri = await pipeline.upload(audio)
        tracemalloc.start()
        try:
            await pipeline.submit(uri)
            completed = (await pipeline.ending()).completed
            peak_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert completed.transcription_metadata.words_count > 1000
    assert peak_bytes < CHUNKS_HELD * CHUNK_BYTES + REST_BYTES
