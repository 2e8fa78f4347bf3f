"""Several audio tracks: the default one is decoded, and a silent one is flagged."""

import numpy as np
import pytest

from tests.support.audio.decoding import decode_all
from tests.support.audio.media import MediaKit, lag_samples
from worker.adapters.audio import FfmpegDecoder
from worker.ports import Pcm

SILENCE = ("-f", "lavfi", "-i", "anullsrc=r=16000:cl=mono:d=3")
TONE = ("-f", "lavfi", "-i", "sine=frequency=440:duration=3:sample_rate=16000")
CONTAINERS = [
    ("two.mp4", ("-c:a", "aac")),
    ("two.mov", ("-c:a", "pcm_s16le")),
    ("two.m4a", ("-c:a", "alac")),
    ("two.mkv", ("-c:a", "flac")),
    ("two.webm", ("-c:a", "libopus")),
    ("two-float.mkv", ("-c:a", "pcm_f32le")),
]
TALK_SECOND = ("-map", "0:a", "-map", "1:a", "-disposition:a:0", "0", "-disposition:a:1", "default")


@pytest.mark.parametrize(("name", "options"), CONTAINERS, ids=[case[0] for case in CONTAINERS])
async def test_the_track_that_the_file_marks_as_default_is_taken(
    media: MediaKit, decoder: FfmpegDecoder, talk: Pcm, name: str, options: tuple[str, ...]
) -> None:
    path = media.encode(name, talk, *TALK_SECOND, *options, before=TONE)

    decoded = await decode_all(decoder, path)
    facts = await decoder.probe(path)

    assert lag_samples(decoded.samples, talk) == 0
    assert facts.channels == 1
    assert not decoded.other_tracks


async def test_the_default_may_differ_in_rate_channels_and_codec(
    media: MediaKit, decoder: FfmpegDecoder, talk: Pcm
) -> None:
    formats = ("-c:a:0", "pcm_s16le", "-c:a:1", "aac", "-ar:a:1", "48000", "-ac:a:1", "2")
    path = media.encode("mixed.mkv", talk, *TALK_SECOND, *formats, before=TONE)

    facts = await decoder.probe(path)

    assert (facts.codec, facts.sample_rate_hz, facts.channels) == ("aac", 48_000, 2)
    assert lag_samples((await decode_all(decoder, path)).samples, talk) == pytest.approx(0, abs=400)


@pytest.mark.parametrize(("name", "options"), CONTAINERS, ids=[case[0] for case in CONTAINERS])
async def test_a_silent_track_beside_another_that_is_not_sets_the_flag(
    media: MediaKit, decoder: FfmpegDecoder, talk: Pcm, name: str, options: tuple[str, ...]
) -> None:
    path = media.encode(f"silent-{name}", talk, "-map", "0:a", "-map", "1:a", *options, before=SILENCE)

    decoded = await decode_all(decoder, path)

    assert not decoded.samples.any()
    assert decoded.other_tracks
    assert not decoded.truncated


@pytest.mark.parametrize("name", ["silent.mp4", "silent.mkv"])
async def test_only_silent_tracks_set_no_flag(media: MediaKit, decoder: FfmpegDecoder, talk: Pcm, name: str) -> None:
    path = media.encode(name, np.zeros_like(talk), "-map", "0:a", "-map", "1:a", "-c:a", "aac", before=SILENCE)

    assert not (await decode_all(decoder, path)).other_tracks


async def test_a_file_of_forty_silent_tracks_is_decided_soon(
    media: MediaKit, decoder: FfmpegDecoder, talk: Pcm
) -> None:
    maps = tuple(option for _ in range(40) for option in ("-map", "0:a"))
    path = media.encode("forty.mkv", talk[:8000], *maps, "-c:a", "pcm_s16le", "-t", "0.5", before=SILENCE)

    decoded = await decode_all(decoder, path)

    assert not decoded.other_tracks
    assert decoded.samples.size == 8000
