import pytest

from schemas.speech import Word
from worker.core.transcript.word_errors import calibration_error, judged_words


def words(*rows: tuple[str, float]) -> list[Word]:
    return [Word(text, float(at), at + 0.5, confidence) for at, (text, confidence) in enumerate(rows)]


def test_words_are_judged_against_the_text() -> None:
    heard = words(("The", 0.9), ("read", 0.6), ("box.", 0.8), ("-", 0.1))

    assert judged_words(heard, "the red box") == [(0.9, True), (0.6, False), (0.8, True)]


def test_a_word_of_two_parts_is_right_where_both_are() -> None:
    assert judged_words(words(("twenty-two", 0.7), ("red-letter", 0.7)), "twenty two red litter") == [
        (0.7, True),
        (0.7, False),
    ]


def test_the_error_is_the_gap_between_confidence_and_right_words() -> None:
    surer = [(0.9, True)] * 5 + [(0.9, False)] * 5

    assert calibration_error(surer) == pytest.approx(0.4)
    assert calibration_error([(1.0, True)] * 3 + [(0.0, False)] * 3) == 0


def test_nothing_has_no_error() -> None:
    assert calibration_error([]) is None
