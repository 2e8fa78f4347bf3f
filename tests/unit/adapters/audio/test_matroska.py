"""When a Matroska file begins, whatever its bytes are."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.audio.media import MediaKit
from worker.adapters.audio.matroska import first_moment
from worker.ports import Pcm


@pytest.mark.parametrize("offset", [0, 3, 7200])
@pytest.mark.parametrize(("name", "options"), [("m.mkv", ("-c:a", "flac")), ("m.webm", ("-c:a", "libopus"))])
def test_the_first_moment_is_that_of_its_first_cluster(
    media: MediaKit, talk: Pcm, name: str, options: tuple[str, ...], offset: int
) -> None:
    path = media.encode(name, talk, *options, "-output_ts_offset", str(offset))

    assert first_moment(path) == pytest.approx(offset, abs=0.02)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=60), at=st.integers(0, 400))
def test_any_bytes_have_a_first_moment_or_none(media: MediaKit, talk: Pcm, content: bytes, at: int) -> None:
    whole = media.encode("m.mkv", talk, "-c:a", "flac").read_bytes()
    path: Path = media.write("any.mkv", whole[:at] + content + whole[at + len(content) :])

    found = first_moment(path)

    assert found is None or isinstance(found, float)
