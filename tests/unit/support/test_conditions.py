from pathlib import Path

import numpy as np
import pytest

from tests.support.audio.conditions import NOISE_DB, manifest_lines, noisy
from tests.support.audio.speech_bank import Reference, Utterance, decode


@pytest.mark.parametrize("decibels", NOISE_DB)
def test_noise_is_that_much_quieter_than_the_speech_alone(decibels: int) -> None:
    samples = np.zeros(160_000, np.int16)
    samples[:16_000] = (3_000 * np.sin(np.arange(16_000) / 10)).astype(np.int16)
    spoken = Utterance(text="a", speaker="s", start_sample=0, end_sample=16_000, word_starts=())

    noise = noisy(samples, Reference(utterances=(spoken,), seconds=10.0), decibels, seed=1)[16_000:].astype(float)

    speech_power = np.mean(samples[:16_000].astype(float) ** 2)
    assert 10 * np.log10(speech_power / np.mean(noise**2)) == pytest.approx(decibels, abs=0.2)


def test_every_condition_has_the_same_words_and_length(tmp_path: Path) -> None:
    lines = list(manifest_lines(tmp_path, 1, 20.0, ["Anna"]))

    assert [line["condition"] for line in lines] == ["clean", "8 kHz MP3", "noise 20 dB", "noise 10 dB", "noise 5 dB"]
    assert len({line["text"] for line in lines}) == 1
    lengths = [len(decode(tmp_path / line["audio_filepath"])) / 16_000 for line in lines]
    assert lengths == pytest.approx([lines[0]["duration"]] * 5, abs=0.1)
