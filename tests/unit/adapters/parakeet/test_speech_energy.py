import numpy as np
import pytest

from worker.adapters.parakeet.network.boosting import frames_with_speech

FRAME = 1_280
SECOND = 16_000


def noise(seconds: float, level: float) -> np.ndarray:
    return (np.random.default_rng(1).standard_normal(round(seconds * SECOND)) * level).astype(np.int16)


@pytest.mark.parametrize("level", [0, 20, 300, 3_000])
def test_steady_noise_of_any_level_is_no_speech(level: float) -> None:
    assert not frames_with_speech(noise(30, level), FRAME).any()


def test_sound_above_the_noise_is_marked_with_what_is_near() -> None:
    samples = noise(10, 300)
    samples[4 * SECOND : 5 * SECOND] += noise(1, 1_000)

    marked = np.flatnonzero(frames_with_speech(samples, FRAME))

    assert 4 - 0.4 < marked[0] * FRAME / SECOND < 4
    assert 5 < marked[-1] * FRAME / SECOND < 5 + 0.4
    assert len(marked) == marked[-1] - marked[0] + 1


@pytest.mark.parametrize("samples", [0, 1, 159, 1_280, 1_281])
def test_there_is_an_entry_for_every_frame(samples: int) -> None:
    assert len(frames_with_speech(np.full(samples, 9_000, np.int16), FRAME)) == -(-samples // FRAME)
