"""Facts from an MP3's own header, without ffmpeg."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.audio.media import MediaKit
from worker.adapters.audio import FfmpegDecoder
from worker.adapters.audio.command import Way
from worker.adapters.audio.mpeg_audio import is_spoilt, mp3_facts
from worker.ports import Pcm

RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("channels", [1, 2])
async def test_its_facts_are_ffmpeg_s(
    media: MediaKit, decoder: FfmpegDecoder, talk: Pcm, rate: int, channels: int
) -> None:
    path = media.encode("facts.mp3", talk, "-ar", str(rate), "-ac", str(channels), "-q:a", "5")
    report, _ = await decoder._probed(path, Way())

    facts = mp3_facts(path)

    assert facts is not None
    assert (facts.codec, facts.sample_rate_hz, facts.channels) == ("mp3", rate, channels)
    assert facts.duration_seconds == pytest.approx(report.claimed_seconds, abs=0.01)
    assert facts.duration_seconds == pytest.approx(3.0, abs=0.001)
    assert not is_spoilt(path)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("no.mp3", ("-write_xing", "0")),
        ("no.wav", ()),
        ("no.mp2", ("-c:a", "mp2")),
        ("no.aac", ("-c:a", "aac")),
        ("no.flac", ()),
        ("no.m4a", ("-c:a", "aac")),
    ],
)
def test_other_files_have_none(media: MediaKit, talk: Pcm, name: str, options: tuple[str, ...]) -> None:
    assert mp3_facts(media.encode(name, talk, *options)) is None


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(st.binary(min_size=1), st.binary(min_size=300).map(lambda data: b"\xff\xfb" + data)))
def test_any_bytes_have_facts_or_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "any.mp3"
    path.write_bytes(content)

    facts = mp3_facts(path)

    assert facts is None or (facts.duration_seconds or 0) >= 0
    assert is_spoilt(path) in {True, False}
