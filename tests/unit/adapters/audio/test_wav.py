"""Facts from a WAV file's own header, without ffmpeg."""

from pathlib import Path

import numpy as np
import pytest

from tests.support.audio.decoding import decode_all
from tests.support.audio.media import MediaKit, riff_wav
from worker.adapters.audio import FfmpegDecoder
from worker.adapters.audio.command import Way
from worker.adapters.audio.headers import are_samples, samples_size, wav_facts
from worker.ports import SAMPLE_RATE_HZ, Pcm


@pytest.mark.parametrize("codec", ["pcm_u8", "pcm_s16le"])
@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (44_100, 2)])
async def test_its_facts_are_ffmpeg_s(
    media: MediaKit, decoder: FfmpegDecoder, talk: Pcm, codec: str, rate: int, channels: int
) -> None:
    options = ("-c:a", codec, "-ar", str(rate), "-ac", str(channels))
    path = media.encode("facts.wav", talk, *options)
    report, _ = await decoder._probed(path, Way())

    facts = wav_facts(path)

    assert facts is not None
    assert (facts.codec, facts.sample_rate_hz, facts.channels) == (report.codec, rate, channels)
    assert facts.duration_seconds == pytest.approx(report.claimed_seconds, abs=0.011)
    assert facts.duration_seconds == pytest.approx(3.0, abs=0.001)


@pytest.mark.parametrize("bits", [24, 32])
async def test_wide_samples_have_ffmpeg_s_facts_too(
    media: MediaKit, decoder: FfmpegDecoder, talk: Pcm, bits: int
) -> None:
    whole = len(talk) * 2 - len(talk) * 2 % (2 * bits // 8)
    path = media.write("wide.wav", riff_wav(talk.tobytes()[:whole], bits=bits, channels=2))
    report, _ = await decoder._probed(path, Way())

    facts = wav_facts(path)

    assert facts is not None
    assert (facts.codec, facts.sample_rate_hz, facts.channels) == (report.codec, 16_000, 2)
    assert facts.duration_seconds == pytest.approx(report.claimed_seconds, abs=0.011)


@pytest.mark.parametrize(("size", "bits"), [(0, 16), (0xFFFF_FFFF, 16), (10**6, 16), (None, 12), (None, 0)])
def test_a_length_or_a_width_that_cannot_be_is_left_to_ffmpeg(
    media: MediaKit, talk: Pcm, size: int | None, bits: int
) -> None:
    payload = talk.tobytes()
    whole = riff_wav(payload, size=len(payload) if size is None else size, bits=16)
    path = media.write("odd.wav", whole[:34] + bits.to_bytes(2, "little") + whole[36:])

    assert wav_facts(path) is None


@pytest.mark.parametrize(
    ("bits", "valid"), [(32, 24), (32, 20), (32, 16), (24, 20), (24, 16), (16, 8), (32, 32), (24, 24)]
)
@pytest.mark.parametrize("channels", [1, 2])
async def test_samples_in_more_bits_than_count_are_read(
    media: MediaKit, decoder: FfmpegDecoder, talk: Pcm, bits: int, valid: int, channels: int
) -> None:
    wide = (np.repeat(talk, channels).astype("<i4") << 16 & -1 << 32 - valid).view("u1").reshape(-1, 4)
    content = riff_wav(wide[:, 4 - bits // 8 :].tobytes(), bits=bits, channels=channels, valid_bits=valid)
    path = media.write("padded.wav", content)

    facts, decoded = await decoder.probe(path), await decode_all(decoder, path)
    cut = await decode_all(decoder, media.write("cut.wav", content[: len(content) // 2]))

    assert facts == wav_facts(path)
    assert facts.duration_seconds == talk.size / SAMPLE_RATE_HZ
    assert np.abs(decoded.samples - talk.astype(int)).max() < 1 << max(0, 16 - valid)
    assert not decoded.truncated
    assert cut.truncated
    assert cut.samples.size == pytest.approx(talk.size / 2, abs=50)


@pytest.mark.parametrize("channels", [1, 2])
def test_noise_may_be_another_codec_and_speech_is_none(media: MediaKit, talk: Pcm, channels: int) -> None:
    speech, noise, silence = talk.tobytes(), np.random.default_rng(1).bytes(talk.nbytes), bytes(talk.nbytes)
    paths = [
        media.write(f"{number}.wav", riff_wav(each, channels=channels))
        for number, each in enumerate((speech, noise, silence))
    ]

    found = [are_samples(path, size) for path in paths if (size := samples_size(path))]

    assert found == [True, False, True]


def test_other_files_have_none(media: MediaKit, talk: Pcm, tmp_path: Path) -> None:
    assert wav_facts(media.encode("no.flac", talk)) is None
    assert wav_facts(media.encode("no.wav", talk, "-c:a", "pcm_mulaw")) is None
    (text := tmp_path / "text.wav").write_bytes(b"RIFF\0\0\0\0WAVEfmt ")
    assert wav_facts(text) is None


def test_a_rate_that_cannot_be_takes_no_memory(media: MediaKit, talk: Pcm) -> None:
    path = media.write("rate.wav", riff_wav(talk.tobytes(), channels=2, rate=400_000_000))
    size = samples_size(path)

    assert size
    assert size.wav
    assert not size.wav.has_two_channels
