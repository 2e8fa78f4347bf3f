from pathlib import Path

import numpy as np
import pytest

from tests.support.audio.speech_bank import Clip, Reference, bank, build_long_file, decode
from worker.ports import SAMPLE_RATE_HZ, Pcm


@pytest.fixture(scope="module")
def clips() -> tuple[Clip, ...]:
    return bank()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Reference, Pcm]:
    path = tmp_path_factory.mktemp("speech") / "long.wav"
    return build_long_file(5, 120, path), decode(path)


def test_the_bank_holds_eight_voices_and_twelve_minutes(clips: tuple[Clip, ...]) -> None:
    assert len({clip.utterance.speaker for clip in clips}) == 8
    assert sum(len(clip.samples) for clip in clips) > 12 * 60 * SAMPLE_RATE_HZ


def test_utterances_lie_where_the_reference_says(clips: tuple[Clip, ...], built: tuple[Reference, Pcm]) -> None:
    reference, samples = built
    audio = {clip.utterance.text: clip.samples for clip in clips}

    for one in reference.utterances:
        likeness = np.corrcoef(samples[one.start_sample : one.end_sample], audio[one.text])[0, 1]
        assert likeness > 0.99


def test_word_starts_lie_in_their_utterance(built: tuple[Reference, Pcm]) -> None:
    for one in built[0].utterances:
        assert len(one.word_starts) in {0, len(one.text.split())}
        assert list(one.word_starts) == sorted(one.word_starts)
        assert all(one.start_sample - 16 <= start * SAMPLE_RATE_HZ < one.end_sample for start in one.word_starts)


def test_a_file_is_a_function_of_its_seed(built: tuple[Reference, Pcm], tmp_path: Path) -> None:
    again = build_long_file(5, 120, tmp_path / "again.wav")
    other = build_long_file(6, 120, tmp_path / "other.wav")

    assert again == built[0] != other
    assert np.array_equal(decode(tmp_path / "again.wav"), built[1])
