import pytest

from tests.support.audio.accuracy import HeardWord, StartError, median_start_error, start_errors, word_error_rate
from tests.support.audio.speech_bank import Reference, Utterance


def utterance(text: str, *word_starts: float) -> Utterance:
    return Utterance(text=text, speaker="anna", start_sample=0, end_sample=1, word_starts=word_starts)


def test_case_and_punctuation_count_as_written_only() -> None:
    rate = word_error_rate(["Call Anna now."], ["call Anna, now."])

    assert rate.written == pytest.approx(100 * 2 / 3)
    assert rate.spoken == 0


def test_errors_are_counted_per_spoken_word() -> None:
    rate = word_error_rate(["one two three four"], ["one too three"])

    assert rate.spoken == 50


def test_starts_are_compared_where_the_word_is_right_and_its_time_known() -> None:
    reference = Reference(utterances=(utterance("Anna will go.", 1, 2, 3), utterance("Now!")), seconds=5)
    heard = [HeardWord("Anna", 1.1), HeardWord("well", 2), HeardWord("go", 3.2), HeardWord("-", 4), HeardWord("now", 4)]

    errors = start_errors(reference, heard)

    assert [(one.at_seconds, round(one.error_seconds, 3)) for one in errors] == [(1, 0.1), (3, 0.2)]


def test_the_median_error_is_taken_of_a_part_of_the_file() -> None:
    errors = [StartError(1, 0.5), StartError(10, 0.1), StartError(11, -0.3), StartError(12, 0.2)]

    assert median_start_error(errors, 5, 15) == 0.1
