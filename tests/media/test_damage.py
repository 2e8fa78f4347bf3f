"""Damaged files: the readable part is decoded and flagged; no readable part is an error."""

import numpy as np
import pytest

from tests.support.audio.decoding import decode_all
from tests.support.audio.media import MediaKit, babble, float_wav, riff_wav
from worker.adapters.audio import FfmpegDecoder
from worker.errors import AudioTooLong, AudioUndecodable
from worker.ports import Pcm

CUT = [
    ("d.wav", ("-ar", "44100")),
    ("d.aiff", ()),
    ("d.flac", ()),
    ("d.mp3", ("-ar", "8000", "-b:a", "32k")),
    ("d.opus", ("-c:a", "libopus")),
    ("d.ogg", ("-c:a", "libvorbis")),
    ("d.mp4", ("-c:a", "aac", "-movflags", "+faststart")),
    ("d.mkv", ("-c:a", "aac")),
    ("d.webm", ("-c:a", "libopus")),
    ("d.aac", ("-c:a", "aac")),
]


@pytest.mark.parametrize(("name", "options"), CUT, ids=[case[0] for case in CUT])
async def test_a_file_cut_off_is_decoded_as_far_as_it_goes_and_flagged(
    media: MediaKit, decoder: FfmpegDecoder, talk: Pcm, name: str, options: tuple[str, ...]
) -> None:
    path = media.cut(media.encode(name, talk, *options), 0.6)

    decoded = await decode_all(decoder, path)

    assert 0.3 * talk.size < decoded.samples.size < 0.75 * talk.size
    assert decoded.truncated


@pytest.mark.parametrize(("name", "options"), [CUT[3], CUT[4], CUT[9]], ids=["mp3", "opus", "aac"])
async def test_a_file_damaged_in_the_middle_is_flagged(
    media: MediaKit, decoder: FfmpegDecoder, talk: Pcm, name: str, options: tuple[str, ...]
) -> None:
    content = bytearray(media.encode(name, talk, *options).read_bytes())
    middle = len(content) // 2
    content[middle : middle + 1000] = np.random.default_rng(3).bytes(1000)
    path = media.write(f"damaged-{name}", bytes(content))

    decoded = await decode_all(decoder, path)

    assert decoded.samples.size > talk.size // 2
    assert decoded.truncated


async def test_tags_behind_an_mp3_are_no_damage(media: MediaKit, decoder: FfmpegDecoder, talk: Pcm) -> None:
    whole = media.encode("d.mp3", talk, "-ar", "8000", "-b:a", "32k").read_bytes()
    path = media.write("tagged.mp3", whole + b"TAG" + bytes(125))

    decoded = await decode_all(decoder, path)

    assert decoded.samples.size == talk.size
    assert not decoded.truncated


async def test_a_wav_written_to_a_pipe_is_whole_although_its_header_is_not(
    media: MediaKit, decoder: FfmpegDecoder, talk: Pcm
) -> None:
    path = media.write("piped.wav", riff_wav(talk.tobytes(), size=0xFFFFFFFF))

    decoded = await decode_all(decoder, path)

    assert np.array_equal(decoded.samples, talk)
    assert not decoded.truncated


async def test_an_mp4_that_lost_its_index_at_the_end_is_refused(
    media: MediaKit, decoder: FfmpegDecoder, talk: Pcm
) -> None:
    path = media.cut(media.encode("lost.m4a", talk, "-c:a", "aac"), 0.6)

    with pytest.raises(AudioUndecodable, match="moov atom not found"):
        await decode_all(decoder, path)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.mp3", b"", "the file is empty"),
        ("no-samples.wav", riff_wav(b""), "it holds no audio samples"),
        ("one-sample.wav", riff_wav(b"\0\1", rate=44_100), "it holds no audio samples"),
        ("headers.wav", riff_wav(b"")[:20], "Invalid data"),
    ],
)
async def test_a_file_without_a_sample_is_refused(
    media: MediaKit, decoder: FfmpegDecoder, name: str, content: bytes, reason: str
) -> None:
    path = media.write(name, content)

    with pytest.raises(AudioUndecodable, match=reason) as raised:
        await decode_all(decoder, path)

    assert str(path.parent) not in str(raised.value)


async def test_nan_and_infinity_become_a_short_hole_not_noise(media: MediaKit, decoder: FfmpegDecoder) -> None:
    clean = (babble(2.0).astype(np.float32) / 32_768).repeat(3)[: 2 * 48_000]
    dirty = clean.copy()
    dirty[48_000] = np.nan
    dirty[72_000:72_003] = np.inf
    heard = await decode_all(decoder, media.write("nan.wav", float_wav(dirty, rate=48_000)))
    truth = await decode_all(decoder, media.write("clean.wav", float_wav(clean, rate=48_000)))

    wrong = np.flatnonzero(heard.samples != truth.samples)

    assert heard.samples.size == truth.samples.size == 32_000
    assert wrong.size <= 128  # 8 ms: the resampler's reach around each
    assert set(np.unique(wrong // 1000)) <= {15, 16, 23, 24}


async def test_a_wav_of_nothing_but_nan_is_silence(media: MediaKit, decoder: FfmpegDecoder) -> None:
    path = media.write("all-nan.wav", float_wav(np.full(16_000, np.nan, np.float32)))

    decoded = await decode_all(decoder, path)

    assert decoded.samples.size == 16_000
    assert not decoded.samples.any()


async def test_floats_beyond_full_scale_are_clipped(media: MediaKit, decoder: FfmpegDecoder) -> None:
    path = media.write("hot.wav", float_wav(np.array([0.0, 3e38, -3e38, 0.5] * 4000, np.float32)))

    decoded = await decode_all(decoder, path)

    assert (decoded.samples.min(), decoded.samples.max()) == (-32_768, 32_767)


async def test_audio_whose_header_states_too_much_is_refused_before_a_block_is_decoded(
    media: MediaKit, decoder: FfmpegDecoder, talk: Pcm
) -> None:
    path = media.encode("long.flac", np.tile(talk, 21))

    with pytest.raises(AudioTooLong) as raised:
        async with decoder.decode(path) as stream:
            await anext(aiter(stream))

    assert (raised.value.seconds, raised.value.limit_seconds) == (63.0, 60)


async def test_audio_without_a_stated_length_is_stopped_once_the_limit_is_passed(
    media: MediaKit, decoder: FfmpegDecoder, talk: Pcm
) -> None:
    path = media.encode("long.aac", np.tile(talk, 21), "-c:a", "aac", "-b:a", "16k")

    with pytest.raises(AudioTooLong) as raised:
        await decode_all(decoder, path)

    assert 60 < raised.value.seconds <= 65
