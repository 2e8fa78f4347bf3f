import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.adapters.parakeet.network.words import Calibration

PLAIN = Calibration(temperature=1.0, near=0.0, bias=0.0)
pieces = st.lists(st.floats(0, 1), min_size=1, max_size=6)


def test_without_weights_a_confidence_is_the_mean_of_its_pieces() -> None:
    found = PLAIN.confidences([(0.9,), (0.8, 0.5)])

    assert found == pytest.approx([0.9, math.sqrt(0.4)])


def test_a_temperature_above_one_makes_less_sure() -> None:
    (found,) = Calibration(temperature=2.0, near=0.0, bias=0.0).confidences([(0.9,)])

    assert found == pytest.approx(0.75)


def test_doubtful_words_around_make_a_word_less_sure() -> None:
    calibration = Calibration(temperature=1.0, near=0.5, bias=0.0)

    among_sure, among_doubtful = (calibration.confidences([(0.9,), (around,)])[0] for around in (0.99, 0.5))

    assert among_doubtful < among_sure


@given(st.lists(pieces, max_size=8), st.floats(0.1, 5), st.floats(-2, 2), st.floats(-9, 9))
def test_every_confidence_is_a_probability(
    words: list[list[float]], temperature: float, near: float, bias: float
) -> None:
    found = Calibration(temperature=temperature, near=near, bias=bias).confidences(words)

    assert len(found) == len(words)
    assert all(0 <= one <= 1 for one in found)
