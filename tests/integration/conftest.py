from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.audio.long_audio import speech_file, stereo_file
from tests.support.workers.cloud import Cloud, cloud_in


@pytest.fixture
def cloud(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cloud]:
    """Fresh servers; Pub/Sub is the official emulator where the test is parametrised so."""
    server = getattr(request, "param", "embedded")
    with cloud_in(tmp_path, None if server == "embedded" else request.getfixturevalue(server)) as cloud:
        yield cloud


@pytest.fixture(scope="session")
def ten_minutes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Speech as the pipeline's MP3."""
    return speech_file(600, tmp_path_factory.mktemp("audio") / "ten-minutes.mp3")


@pytest.fixture(scope="session")
def five_minutes_of_stereo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another conversation on each channel."""
    return stereo_file(300, tmp_path_factory.mktemp("audio") / "five-minutes-of-stereo.mp3")
