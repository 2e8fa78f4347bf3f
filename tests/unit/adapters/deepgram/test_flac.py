import subprocess

import numpy as np
import pytest

from tests.support.services.deepgram import chatter
from worker.adapters.audio.locate import find_ffmpeg
from worker.adapters.deepgram.recogniser import FlacBody
from worker.ports import SAMPLE_RATE_HZ, Pcm


async def encoded(samples: Pcm) -> bytes:
    return b"".join([piece async for piece in FlacBody(samples)])


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


async def test_the_same_samples_are_the_same_bytes() -> None:
    samples = chatter(12)

    assert await encoded(samples) == await encoded(samples.copy())


async def test_it_is_exhausted_only_when_the_last_byte_was_asked_for() -> None:
    body = FlacBody(chatter(30))
    pieces = aiter(body)

    first, second = await anext(pieces), await anext(pieces)

    assert first.startswith(b"fLaC")
    assert second
    assert not body.exhausted
    async for _ in pieces:
        pass
    assert body.exhausted
