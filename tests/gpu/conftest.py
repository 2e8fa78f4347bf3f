from pathlib import Path

import pytest

from bench.speech import some_speech
from bench.weights import model_of
from worker.ports import SAMPLE_RATE_HZ, Pcm

SEED = 7
SECONDS = (4, 9, 14, 19, 24, 29, 34, 39)
"""One window for each bucket, none of them full."""


@pytest.fixture(scope="session")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The architecture of parakeet-tdt-0.6b-v2, which takes a minute and 2.5 GB to make."""
    return Path(model_of("random-0.6b", tmp_path_factory.mktemp("weights"), print))


@pytest.fixture(scope="session")
def many_windows() -> tuple[Pcm, ...]:
    """Forty minutes of speech in windows of every bucket: 0.1 % of their tokens is more than one."""
    speech, windows, start = some_speech(40 * 60, SEED), [], 0
    while start < len(speech):
        end = start + SECONDS[len(windows) % len(SECONDS)] * SAMPLE_RATE_HZ
        windows.append(speech[start:end])
        start = end
    return tuple(windows)
