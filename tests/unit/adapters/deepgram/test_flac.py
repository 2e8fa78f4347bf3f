import io
import subprocess
import tracemalloc

import numpy as np
import pytest
import soundfile

from tests.support.services.deepgram import chatter
from worker.adapters.audio.locate import find_ffmpeg
from worker.adapters.deepgram.flac import FlacStream
from worker.ports import SAMPLE_RATE_HZ, Pcm


async def encoded(samples: Pcm) -> bytes:
    return b"".join([piece async for piece in FlacStream(samples)])


def decoded_by_ffmpeg(flac: bytes) -> Pcm:
    command = [str(find_ffmpeg()), "-v", "error", "-xerror", "-i", "-", "-f", "s16le", "-"]
    done = subprocess.run(command, input=flac, capture_output=True, check=True)
    assert done.stderr == b""
    return np.frombuffer(done.stdout, dtype=np.int16)


@pytest.mark.parametrize("samples", [1, 4_096, 10 * SAMPLE_RATE_HZ, 10 * SAMPLE_RATE_HZ + 1, 35 * SAMPLE_RATE_HZ])
async def test_another_decoder_gets_exactly_our_samples(samples: int) -> None:
    sound = np.random.default_rng(samples).integers(-32_768, 32_767, samples, dtype=np.int16)

    flac = await encoded(sound)

    assert np.array_equal(decoded_by_ffmpeg(flac), sound)


async def test_the_header_says_how_long_it_is_although_it_is_sent_first() -> None:
    facts = soundfile.info(io.BytesIO(await encoded(chatter(25))))

    assert (facts.format, facts.frames, facts.samplerate, facts.channels) == ("FLAC", 25 * 16_000, 16_000, 1)


async def test_the_same_samples_are_the_same_bytes() -> None:
    samples = chatter(12)

    assert await encoded(samples) == await encoded(samples.copy())


async def test_it_is_exhausted_only_when_the_last_byte_was_asked_for() -> None:
    stream = FlacStream(chatter(11))

    first, second = await anext(stream), await anext(stream)

    assert first.startswith(b"fLaC")
    assert second
    assert not stream.exhausted
    assert [piece async for piece in stream] == []
    assert stream.exhausted


async def test_ten_minutes_take_the_memory_of_seconds() -> None:
    samples = np.tile(chatter(60), 10)
    tracemalloc.start()

    sizes = [len(piece) async for piece in FlacStream(samples)]

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(sizes) < samples.nbytes
    assert peak < 2_000_000
