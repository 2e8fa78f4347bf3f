"""Contract of every `AudioDecoder`, on the twin and on ffmpeg."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.support.audio.decoding import decode_all
from tests.support.audio.media import babble, riff_wav
from worker.adapters.audio import FfmpegDecoder, Limits, find_ffmpeg
from worker.adapters.memory.audio import MemoryAudioDecoder, memory_audio
from worker.errors import AudioTooLong, AudioUndecodable
from worker.ports import SAMPLE_RATE_HZ, AudioDecoder, Pcm

LIMIT_SECONDS = 20.0


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A decoder, and how to write a file that it understands."""

    decoder: AudioDecoder
    encode: Callable[[Pcm], bytes]
    encode_channels: Callable[[Pcm], bytes]
    """The same for samples of shape (samples, channels)."""
    cut_bytes: int
    """Taken off a file's end, it shows as a cut."""

    def write_channels(self, path: Path, samples: Pcm) -> None:
        path.write_bytes(self.encode_channels(samples))

    def write(self, path: Path, samples: Pcm, *, cut: bool = False) -> None:
        content = self.encode(samples)
        path.write_bytes(content[: -self.cut_bytes] if cut else content)


@pytest.fixture(params=["memory", "ffmpeg"])
def candidate(request: pytest.FixtureRequest) -> Candidate:
    if request.param == "memory":
        twin = MemoryAudioDecoder(max_seconds=LIMIT_SECONDS)
        return Candidate(decoder=twin, encode=memory_audio, encode_channels=memory_audio, cut_bytes=3)
    decoder = FfmpegDecoder(ffmpeg=find_ffmpeg(), limits=Limits(max_seconds=LIMIT_SECONDS))
    return Candidate(
        decoder=decoder,
        encode=lambda samples: riff_wav(samples.tobytes()),
        encode_channels=lambda samples: riff_wav(samples.astype("<i2").tobytes(), channels=samples.shape[1]),
        cut_bytes=20_000,
    )


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    return tmp_path / "audio"


async def test_samples_come_out_as_they_went_in(candidate: Candidate, audio: Path) -> None:
    samples = babble(12.3)
    candidate.write(audio, samples)

    decoded = await decode_all(candidate.decoder, audio)

    assert decoded.samples.dtype == np.int16
    assert np.array_equal(decoded.samples, samples)
    assert not decoded.truncated


async def test_no_block_is_empty_and_none_holds_it_all(candidate: Candidate, audio: Path) -> None:
    candidate.write(audio, babble(12.3))

    async with candidate.decoder.decode(audio) as stream:
        sizes = [block.size async for block in stream]

    assert len(sizes) > 1
    assert all(sizes)
    assert sum(sizes) == round(12.3 * SAMPLE_RATE_HZ)


async def test_a_probe_returns_the_length(candidate: Candidate, audio: Path) -> None:
    candidate.write(audio, babble(2.5))

    facts = await candidate.decoder.probe(audio)

    assert facts.duration_seconds == pytest.approx(2.5, abs=0.01)
    assert (facts.sample_rate_hz, facts.channels) == (SAMPLE_RATE_HZ, 1)
    assert facts.codec


@pytest.mark.parametrize("content", [b"", b"just text", b"#EXTM3U\nhttp://127.0.0.1/a.mp3\n"])
async def test_what_is_no_audio_is_undecodable(candidate: Candidate, tmp_path: Path, content: bytes) -> None:
    (audio := tmp_path / "audio").write_bytes(content)

    with pytest.raises(AudioUndecodable):
        await candidate.decoder.probe(audio)
    with pytest.raises(AudioUndecodable):
        await decode_all(candidate.decoder, audio)


async def test_a_file_without_a_sample_is_undecodable(candidate: Candidate, audio: Path) -> None:
    candidate.write(audio, np.zeros(0, np.int16))

    with pytest.raises(AudioUndecodable):
        await candidate.decoder.probe(audio)
    with pytest.raises(AudioUndecodable):
        await decode_all(candidate.decoder, audio)


async def test_audio_as_long_as_the_limit_is_decoded(candidate: Candidate, audio: Path) -> None:
    candidate.write(audio, babble(LIMIT_SECONDS))

    decoded = await decode_all(candidate.decoder, audio)

    assert decoded.samples.size == LIMIT_SECONDS * SAMPLE_RATE_HZ


async def test_longer_audio_is_too_long(candidate: Candidate, audio: Path) -> None:
    candidate.write(audio, babble(LIMIT_SECONDS + 1))

    with pytest.raises(AudioTooLong) as raised:
        await decode_all(candidate.decoder, audio)

    assert raised.value.limit_seconds == LIMIT_SECONDS
    assert raised.value.seconds > LIMIT_SECONDS


async def test_a_cut_file_is_decoded_as_far_as_it_goes_and_flagged(candidate: Candidate, audio: Path) -> None:
    samples = babble(12.3)
    candidate.write(audio, samples, cut=True)

    decoded = await decode_all(candidate.decoder, audio)

    # ffmpeg may drop the packet that the cut went through
    assert 0 < samples.size - decoded.samples.size <= candidate.cut_bytes // 2 + 4096
    assert np.array_equal(decoded.samples, samples[: decoded.samples.size])
    assert decoded.truncated


async def test_facts_about_the_end_are_unknown_before_it_is_reached(candidate: Candidate, audio: Path) -> None:
    candidate.write(audio, babble(12.3), cut=True)

    async with candidate.decoder.decode(audio) as stream:
        await anext(aiter(stream))

        assert not stream.truncated


async def test_a_decode_left_early_does_not_disturb_the_next(candidate: Candidate, audio: Path) -> None:
    samples = babble(12.3)
    candidate.write(audio, samples)
    async with candidate.decoder.decode(audio) as stream:
        await anext(aiter(stream))

    decoded = await decode_all(candidate.decoder, audio)

    assert np.array_equal(decoded.samples, samples)


async def test_decodes_run_side_by_side(candidate: Candidate, audio: Path) -> None:
    samples = babble(6.0)
    candidate.write(audio, samples)

    both = await asyncio.gather(decode_all(candidate.decoder, audio), decode_all(candidate.decoder, audio))

    assert all(np.array_equal(one.samples, samples) for one in both)


@pytest.mark.parametrize("count", [1, 2, 3, 8])
async def test_each_channel_can_be_decoded_alone(candidate: Candidate, audio: Path, count: int) -> None:
    voice = babble(8.0)
    channels = np.stack([np.roll(voice, 1000 * number) // (number + 1) for number in range(count)], axis=1)
    candidate.write_channels(audio, channels)

    facts = await candidate.decoder.probe(audio)
    alone = [await decode_all(candidate.decoder, audio, channel=number) for number in range(count)]

    assert facts.channels == count
    for number, decoded in enumerate(alone):
        assert np.array_equal(decoded.samples, channels[:, number])
        assert not decoded.truncated


async def test_a_channel_that_the_file_does_not_have_is_silent(candidate: Candidate, audio: Path) -> None:
    candidate.write(audio, babble(4.0))

    decoded = await decode_all(candidate.decoder, audio, channel=1)

    assert decoded.samples.size == 4 * SAMPLE_RATE_HZ
    assert not decoded.samples.any()
