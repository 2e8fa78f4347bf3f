"""Whole files whose headers or seams look like damage, and damaged ones that look whole: the flag says which."""

import struct
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.audio.decoding import decode_all
from tests.support.audio.media import MediaKit, lag_samples, riff_wav
from worker.adapters.audio import FfmpegDecoder
from worker.adapters.audio.headers import samples_size
from worker.ports import SAMPLE_RATE_HZ, Pcm

LIST = b"LIST" + struct.pack("<I", 20) + b"INFOISFT" + struct.pack("<I", 8) + b"a tool\0\0"


@pytest.mark.parametrize("size", [0, 0x7FFF_F000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFE, 0xFFFF_FFFF])
@pytest.mark.parametrize(("bits", "channels", "rate"), [(16, 1, 16_000), (16, 2, 44_100), (24, 1, 48_000)])
async def test_a_wav_of_unknown_length_is_read_to_its_end(
    media: MediaKit, decoder: FfmpegDecoder, size: int, bits: int, channels: int, rate: int
) -> None:
    payload = bytes(rate * channels * bits // 8 * 2)
    path = media.write("unknown.wav", riff_wav(payload, size=size, bits=bits, channels=channels, rate=rate))

    decoded = await decode_all(decoder, path)

    assert decoded.samples.size == pytest.approx(2 * SAMPLE_RATE_HZ, abs=16)
    assert not decoded.truncated


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.99])
@pytest.mark.parametrize("options", [{}, {"rate": 44_100}])
async def test_a_wav_that_goes_on_behind_its_stated_end_is_read_to_its_end(
    media: MediaKit, decoder: FfmpegDecoder, talk: Pcm, share: float, options: dict[str, int]
) -> None:
    payload = talk.tobytes()
    path = media.write("short.wav", riff_wav(payload, size=int(len(payload) * share) // 2 * 2, **options))

    decoded = await decode_all(decoder, path)

    rate = options.get("rate", SAMPLE_RATE_HZ)
    assert decoded.samples.size == pytest.approx(talk.size * SAMPLE_RATE_HZ / rate, abs=16)
    assert not decoded.truncated


@pytest.mark.parametrize("tail", [LIST, LIST * 3, LIST + b"id3 " + struct.pack("<I", 10) + bytes(10), bytes(40)])
async def test_chunks_behind_a_wav_s_samples_are_no_samples(
    media: MediaKit, decoder: FfmpegDecoder, talk: Pcm, tail: bytes
) -> None:
    path = media.write("tail.wav", riff_wav(talk.tobytes()) + tail)

    decoded = await decode_all(decoder, path)

    assert np.array_equal(decoded.samples, talk)
    assert not decoded.truncated


@pytest.mark.parametrize("share", [0.2, 0.5, 0.7])
async def test_a_wav_that_ends_before_its_stated_end_is_truncated(
    media: MediaKit, decoder: FfmpegDecoder, talk: Pcm, share: float
) -> None:
    whole = riff_wav(talk.tobytes())
    path = media.write("long.wav", whole[: int(len(whole) * share)])

    decoded = await decode_all(decoder, path)

    assert decoded.samples.size == pytest.approx(talk.size * share, abs=4096)
    assert decoded.truncated


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=80), size=st.integers(0, 2**32 - 1))
def test_any_header_has_a_size_or_none(media: MediaKit, content: bytes, size: int) -> None:
    path = media.write("any.wav", riff_wav(content, size=size)[: 20 + len(content)])

    found = samples_size(path)

    assert found is None or found.there_bytes >= 0


# --- files of nothing but frames --------------------------------------------------------------------------------------

ID3 = b"ID3\x04\0\0\0\0\x02\x00" + b"TIT2" + struct.pack(">I", 20) + b"\0\0" + bytes(246)
APE = b"APETAGEX" + struct.pack("<IIII", 2000, 32, 0, 0) + bytes(8)
FRAMES = [
    ("t.mp3", ("-ar", "44100", "-b:a", "64k", "-write_xing", "0", "-id3v2_version", "0")),
    ("t8.mp3", ("-ar", "8000", "-b:a", "32k", "-write_xing", "0", "-id3v2_version", "0")),
    ("t.mp2", ("-c:a", "mp2", "-ar", "48000")),
    ("t.aac", ("-c:a", "aac", "-ar", "44100")),
]
BETWEEN: list[tuple[str, Callable[[bytes, bytes], bytes]]] = [
    ("an ID3 tag", lambda first, second: first + ID3 + second),
    ("an old tag", lambda first, second: first + b"TAG" + bytes(125) + second),
    ("two tags", lambda first, second: first + b"TAG" + bytes(125) + ID3 + second),
    ("an APE tag", lambda first, second: first + APE + second),
    ("zeros", lambda first, second: first + bytes(5000) + second),
    ("zeros at the end", lambda first, second: first + second + bytes(40_000)),
    ("a tag at the end", lambda first, second: first + second + ID3),
    ("tags at both ends", lambda first, second: ID3 + first + second + APE + b"TAG" + bytes(125)),
]


@pytest.mark.parametrize(("name", "options"), FRAMES, ids=[case[0] for case in FRAMES])
@pytest.mark.parametrize("put", BETWEEN, ids=[case[0] for case in BETWEEN])
async def test_tags_and_zeros_between_frames_are_no_damage(
    media: MediaKit,
    decoder: FfmpegDecoder,
    talk: Pcm,
    name: str,
    options: tuple[str, ...],
    put: tuple[str, Callable[[bytes, bytes], bytes]],
) -> None:
    content = media.encode(name, talk, *options).read_bytes()
    path = media.write(f"between-{name}", put[1](content, content))

    decoded = await decode_all(decoder, path)

    assert decoded.samples.size / SAMPLE_RATE_HZ == pytest.approx(6.0, abs=0.35)
    assert not decoded.truncated


@pytest.mark.parametrize(("name", "options"), FRAMES, ids=[case[0] for case in FRAMES])
async def test_noise_between_frames_is_damage(
    media: MediaKit, decoder: FfmpegDecoder, talk: Pcm, name: str, options: tuple[str, ...]
) -> None:
    content = media.encode(name, talk, *options).read_bytes()
    noise = np.random.default_rng(5).bytes(3000)
    path = media.write(f"noise-{name}", content[: len(content) // 2] + noise + content[len(content) // 2 :])

    assert (await decode_all(decoder, path)).truncated


# --- chains -----------------------------------------------------------------------------------------------------------

CHAINS = [("c.opus", ("-c:a", "libopus")), ("c.ogg", ("-c:a", "libvorbis")), ("c.oga", ("-c:a", "flac"))]


@pytest.mark.parametrize(("name", "options"), CHAINS, ids=[case[0] for case in CHAINS])
@pytest.mark.parametrize(("count", "tail", "missing"), [(2, b"", False), (5, b"", False), (2, bytes(200_000), False)])
async def test_a_chain_of_equal_links_is_whole(
    media: MediaKit,
    decoder: FfmpegDecoder,
    talk: Pcm,
    name: str,
    options: tuple[str, ...],
    count: int,
    tail: bytes,
    missing: bool,
) -> None:
    content = media.encode(name, talk, *options).read_bytes()
    path = media.write(f"chain-{name}", content * count + tail)

    decoded = await decode_all(decoder, path)

    assert decoded.samples.size / SAMPLE_RATE_HZ == pytest.approx(3.0 * count, abs=0.05)
    assert decoded.truncated == missing


@pytest.mark.parametrize(("name", "options"), CHAINS, ids=[case[0] for case in CHAINS])
async def test_a_chain_that_ends_inside_its_last_link_is_truncated(
    media: MediaKit, decoder: FfmpegDecoder, talk: Pcm, name: str, options: tuple[str, ...]
) -> None:
    content = media.encode(name, talk, *options).read_bytes()
    path = media.write(f"cut-chain-{name}", content + content[: len(content) * 8 // 10])

    decoded = await decode_all(decoder, path)

    assert 3.5 < decoded.samples.size / SAMPLE_RATE_HZ < 5.5
    assert decoded.truncated


async def test_a_variable_bit_rate_without_a_header_has_no_length_to_route_by(
    media: MediaKit, decoder: FfmpegDecoder, talk: Pcm
) -> None:
    loud = np.concatenate([np.zeros_like(talk), talk, np.zeros_like(talk)])
    path = media.encode("vbr.mp3", loud, "-ar", "44100", "-q:a", "2", "-write_xing", "0")

    facts = await decoder.probe(path)
    decoded = await decode_all(decoder, path)

    assert facts.duration_seconds is None
    assert decoded.samples.size / SAMPLE_RATE_HZ == pytest.approx(9.0, abs=0.1)
    assert lag_samples(decoded.samples, loud) < SAMPLE_RATE_HZ // 10


@pytest.mark.parametrize("seconds", [1.0, 2.4, 3.0])
@pytest.mark.parametrize("options", [("-ar", "44100", "-ac", "2"), ()])
async def test_alac_in_caf_loses_nothing_at_its_end(
    media: MediaKit, decoder: FfmpegDecoder, talk: Pcm, seconds: float, options: tuple[str, ...]
) -> None:
    samples = talk[: round(seconds * SAMPLE_RATE_HZ)]

    decoded = await decode_all(decoder, media.encode("whole.caf", samples, *options, "-c:a", "alac"))

    assert decoded.samples.size == samples.size
    assert not decoded.truncated
