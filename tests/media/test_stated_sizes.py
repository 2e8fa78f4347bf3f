"""Sizes, lengths and clocks that a header states and that its writer did not know: in every container that has them."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support.audio.decoding import decode_all
from tests.support.audio.media import MediaKit, babble, lag_samples, riff_wav
from worker.adapters.audio import FfmpegDecoder, Limits
from worker.errors import AudioUndecodable
from worker.ports import SAMPLE_RATE_HZ, Pcm

Header = Callable[[bytearray, int], None]
"""Writes the size of the samples into a file."""


def _into(form: str, mark: bytes, behind: int, *, more: int = 0) -> Header:
    return lambda content, size: struct.pack_into(form, content, content.index(mark) + behind, size + more)


def _aiff(content: bytearray, size: int) -> None:
    _into(">I", b"SSND", 4, more=8)(content, size)
    _into(">I", b"COMM", 10)(content, size // 2)


RF64 = ("-rf64", "always")
CONTAINERS: dict[str, tuple[tuple[str, ...], Header]] = {
    "s.aiff": ((), _aiff),
    "s.caf": (("-c:a", "pcm_s16le"), _into(">q", b"data", 4, more=4)),
    "s.w64": ((), _into("<q", b"data", 16, more=24)),
    "rf64.wav": (RF64, _into("<Q", b"ds64", 16)),
}


def _stating(media: MediaKit, talk: Pcm, name: str, size: int) -> Path:
    """Return a file of the talk whose header states that many bytes of samples."""
    options, write = CONTAINERS[name]
    content = bytearray(media.encode(name, talk, *options).read_bytes())
    write(content, size)
    return media.write(f"stating-{name}", bytes(content))


@pytest.mark.parametrize(
    ("name", "size"), [("s.aiff", 0x7F00_0000), ("s.caf", -5), ("s.w64", 1 << 62), ("rf64.wav", 0)], ids=str
)
async def test_a_size_that_was_unknown_is_no_damage(
    media: MediaKit, talk: Pcm, decoder: FfmpegDecoder, name: str, size: int
) -> None:
    decoded = await decode_all(decoder, _stating(media, talk, name, size))

    assert np.array_equal(decoded.samples, talk)
    assert not decoded.truncated


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize("share", [0.1, 0.6])
async def test_samples_behind_the_stated_end_are_decoded_or_flagged(
    media: MediaKit, talk: Pcm, decoder: FfmpegDecoder, name: str, share: float
) -> None:
    decoded = await decode_all(decoder, _stating(media, talk, name, int(talk.size * share) * 2))

    assert decoded.truncated == (decoded.samples.size < talk.size)
    assert decoded.samples.size == (talk.size if name == "rf64.wav" else pytest.approx(talk.size * share, abs=1))


@pytest.mark.parametrize("name", CONTAINERS)
async def test_a_chunk_behind_the_samples_is_no_sample(
    media: MediaKit, talk: Pcm, decoder: FfmpegDecoder, name: str
) -> None:
    chunks = {
        "s.aiff": b"ANNO" + struct.pack(">I", 100),
        "s.caf": b"info" + struct.pack(">q", 100),
        "s.w64": b"note" + bytes(12) + struct.pack("<Q", 124),
        "rf64.wav": b"LIST" + struct.pack("<I", 100),
    }
    content = media.encode(name, talk, *CONTAINERS[name][0]).read_bytes() + chunks[name] + bytes(100)

    decoded = await decode_all(decoder, media.write(f"chunk-{name}", content))

    assert np.array_equal(decoded.samples, talk)
    assert not decoded.truncated


@pytest.mark.parametrize("padding", [b"", b"\0"])
async def test_a_byte_that_is_no_whole_sample_is_no_damage(
    media: MediaKit, talk: Pcm, decoder: FfmpegDecoder, padding: bytes
) -> None:
    path = media.write("odd.wav", riff_wav(talk.tobytes() + b"\1") + padding)

    decoded = await decode_all(decoder, path)

    assert np.array_equal(decoded.samples, talk)
    assert not decoded.truncated


@pytest.mark.parametrize(
    ("facts", "stated"),
    [({"channels": 0}, "0 channels of 16000 Hz"), ({"rate": 0}, "of 0 Hz"), ({"bits": 0}, "and 0 bits")],
    ids=str,
)
async def test_a_wav_of_nothing_is_refused_by_what_its_header_states(
    media: MediaKit, talk: Pcm, decoder: FfmpegDecoder, facts: dict[str, int], stated: str
) -> None:
    path = media.write("nothing.wav", riff_wav(talk.tobytes(), **facts))

    with pytest.raises(AudioUndecodable, match=stated):
        await decoder.probe(path)


@pytest.mark.parametrize("name", ["s.aiff", "s.caf", "s.w64"])
async def test_a_header_of_no_samples_before_many_is_named(
    media: MediaKit, talk: Pcm, decoder: FfmpegDecoder, name: str
) -> None:
    path = _stating(media, talk, name, 0)

    with pytest.raises(AudioUndecodable, match="states that it holds no samples, although 960"):
        await decoder.probe(path)


# --- FLAC and Ogg -----------------------------------------------------------------------------------------------------

APE = b"APETAGEX" + struct.pack("<IIII", 2000, 32, 0, 0) + bytes(8)


@pytest.mark.parametrize("tail", [b"TAG" + bytes(125), bytes(5000), APE, b"ID3\4\0\0\0\0\x01\0" + bytes(128)])
@pytest.mark.parametrize("options", [(), ("-ar", "44100", "-ac", "2")])
async def test_tags_and_zeros_behind_a_flac_file_are_no_damage(
    media: MediaKit, talk: Pcm, decoder: FfmpegDecoder, tail: bytes, options: tuple[str, ...]
) -> None:
    path = media.write("tail.flac", media.encode("t.flac", talk, *options).read_bytes() + tail)

    decoded = await decode_all(decoder, path)

    assert decoded.samples.size == talk.size
    assert not decoded.truncated


@pytest.mark.parametrize("place", [0.3, 0.5, 0.97])
@pytest.mark.parametrize("tail", [b"", b"TAG" + bytes(125)])
async def test_a_frame_that_is_missing_in_a_flac_file_is_damage(
    media: MediaKit, talk: Pcm, decoder: FfmpegDecoder, place: float, tail: bytes
) -> None:
    content = bytearray(media.encode("t.flac", talk).read_bytes())
    at = int(len(content) * place)
    content[at : at + 1000] = bytes(1000)[: len(content) - at]

    decoded = await decode_all(decoder, media.write("hurt.flac", bytes(content) + tail))

    assert decoded.samples.size < talk.size
    assert decoded.truncated


async def test_joined_flac_files_without_any_tags_follow_each_other(
    media: MediaKit, talk: Pcm, decoder: FfmpegDecoder
) -> None:
    whole = media.encode("t.flac", talk).read_bytes()
    at, is_last = 4, 0
    while not is_last:
        is_last, at = whole[at] & 0x80, at + 4 + int.from_bytes(whole[at + 1 : at + 4], "big")
    bare = whole[:4] + b"\x80" + whole[5:42] + whole[at:]

    decoded = await decode_all(decoder, media.write("bare.flac", bare * 2))

    assert np.array_equal(decoded.samples, np.tile(talk, 2))
    assert not decoded.truncated


def _pages(content: bytes) -> list[bytes]:
    starts = [at for at in range(len(content)) if content.startswith(b"OggS", at)]
    return [content[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)]


@pytest.mark.parametrize(("name", "codec"), [("p.opus", "libopus"), ("p.ogg", "libvorbis"), ("p.oga", "flac")])
async def test_pages_missing_in_an_ogg_file_are_silence_and_flagged(
    media: MediaKit, talk: Pcm, decoder: FfmpegDecoder, name: str, codec: str
) -> None:
    options = ("-ar", "48000", "-c:a", codec, "-page_duration", "100000")
    pages = _pages(media.encode(name, talk, *options).read_bytes())
    path = media.write(f"lost-{name}", b"".join(pages[:8] + pages[14:]))

    decoded = await decode_all(decoder, path)

    assert abs(lag_samples(decoded.samples, talk)) <= SAMPLE_RATE_HZ // 100
    assert decoded.truncated


@pytest.mark.parametrize("page_ms", [20, 300, 1000])
@pytest.mark.parametrize(("name", "codec"), [("p.opus", "libopus"), ("p.ogg", "libvorbis"), ("p.oga", "flac")])
async def test_pages_that_come_twice_in_an_ogg_file_are_decoded_once(
    media: MediaKit, decoder: FfmpegDecoder, name: str, codec: str, page_ms: int
) -> None:
    options = ("-ar", "48000", "-c:a", codec, "-page_duration", str(1000 * page_ms))
    whole = media.encode(f"{page_ms}-{name}", babble(7.0), *options)
    content, pages = whole.read_bytes(), _pages(whole.read_bytes())
    middle = len(pages) // 2
    once, often = [*pages[:middle], *pages[middle - 1 :]], [*pages[:middle], *pages[3:middle], *pages[3:], pages[-1]]
    fragment = content[: len(content) // 2] + content[len(content) // 3 :]
    contents = (content, b"".join(once), b"".join(often), fragment)

    heard = [await decode_all(decoder, media.write(f"{number}-{name}", each)) for number, each in enumerate(contents)]

    assert all(np.array_equal(each.samples, heard[0].samples) for each in heard)
    assert [each.truncated for each in heard] == [False, False, False, True]


async def test_a_chain_of_ogg_files_with_pages_that_come_twice_keeps_its_links(
    media: MediaKit, decoder: FfmpegDecoder
) -> None:
    links = [media.encode(f"link{seed}.opus", babble(4.0, seed=seed), "-c:a", "libopus") for seed in (1, 2)]
    pages = [_pages(link.read_bytes()) for link in links]
    twice = [page for link in pages for page in (*link[:4], *link[2:])]

    chain = await decode_all(decoder, media.write("chain.opus", b"".join(link.read_bytes() for link in links)))
    repeated = await decode_all(decoder, media.write("twice.opus", b"".join(twice)))

    assert np.array_equal(chain.samples, repeated.samples)
    assert not repeated.truncated


# --- clocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("live.opus", ("-c:a", "libopus")),
        ("live.ogg", ("-c:a", "libvorbis")),
        ("live.flv", ("-c:a", "aac", "-ar", "44100", "-flvflags", "no_duration_filesize")),
        ("live.wma", ("-c:a", "wmav2")),
        ("live.webm", ("-c:a", "libopus")),
    ],
)
async def test_a_recording_of_a_stream_that_ran_for_a_day_is_as_long_as_it_is(
    media: MediaKit, talk: Pcm, name: str, options: tuple[str, ...]
) -> None:
    path = media.encode(name, talk, *options, "-output_ts_offset", str(86_400))
    decoder = FfmpegDecoder(ffmpeg=media.ffmpeg, limits=Limits(max_seconds=3600))

    decoded = await decode_all(decoder, path)

    assert decoded.samples.size / SAMPLE_RATE_HZ == pytest.approx(3.0, abs=0.1)
    assert not decoded.truncated
