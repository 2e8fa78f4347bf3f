import pytest

from tests.support.audio.media import MediaKit, babble
from worker.adapters.audio import FfmpegDecoder, Limits
from worker.ports import Pcm


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> MediaKit:
    return MediaKit.at(tmp_path_factory.mktemp("media"))


@pytest.fixture(scope="session")
def talk() -> Pcm:
    return babble(3.0)


@pytest.fixture
def decoder(media: MediaKit) -> FfmpegDecoder:
    return FfmpegDecoder(ffmpeg=media.ffmpeg, limits=Limits(max_seconds=60))
