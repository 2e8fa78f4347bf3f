"""Facts from a FLAC file's own header, without ffmpeg."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.audio.media import MediaKit
from worker.adapters.audio import FfmpegDecoder
from worker.adapters.audio.command import Way
from worker.adapters.audio.headers import flac_facts
from worker.ports import Pcm


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 96_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
async def test_its_facts_are_ffmpeg_s(
    media: MediaKit, decoder: FfmpegDecoder, talk: Pcm, rate: int, channels: int
) -> None:
    path = media.encode("facts.flac", talk, "-ar", str(rate), "-ac", str(channels))
    report, _ = await decoder._probed(path, Way())

    facts = flac_facts(path)

    assert facts is not None
    assert (facts.codec, facts.sample_rate_hz, facts.channels) == (report.codec, rate, channels)
    assert facts.duration_seconds == pytest.approx(report.claimed_seconds, abs=0.01)
    assert facts.duration_seconds == pytest.approx(3.0, abs=0.001)


async def test_a_header_without_a_length_states_none(media: MediaKit, talk: Pcm) -> None:
    path = media.encode("stream.flac", talk)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    path.write_bytes(content)

    facts = flac_facts(path)

    assert facts is not None
    assert facts.duration_seconds is None


@pytest.mark.parametrize(
    ("name", "options"), [("no.mp3", ()), ("no.wav", ()), ("no.ogg", ("-c:a", "flac")), ("no.m4a", ("-c:a", "aac"))]
)
def test_other_files_have_none(media: MediaKit, talk: Pcm, name: str, options: tuple[str, ...]) -> None:
    assert flac_facts(media.encode(name, talk, *options)) is None


@pytest.mark.parametrize(
    ("at", "octets"),
    [(4, b"\x01"), (7, b"\x21"), (18, b"\0\0\0")],
    ids=["another block first", "a short block", "a rate of 0"],
)
def test_a_header_that_is_not_as_it_must_be_is_left_to_ffmpeg(
    media: MediaKit, talk: Pcm, at: int, octets: bytes
) -> None:
    path = media.encode("facts.flac", talk)
    content = bytearray(path.read_bytes())
    content[at : at + len(octets)] = octets
    path.write_bytes(content)

    assert flac_facts(path) is None


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(st.binary(), st.binary(min_size=34, max_size=60).map(lambda data: b"fLaC\0\0\0\x22" + data)))
def test_any_bytes_have_facts_or_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "any.flac"
    path.write_bytes(content)

    facts = flac_facts(path)

    assert facts is None or (facts.sample_rate_hz > 0 and (facts.duration_seconds or 0) >= 0)
