import pytest

from worker.core.transcript.word_errors import TimedWord, missing_runs

STEP_SECONDS = 0.5


def spoken(text: str) -> list[TimedWord]:
    """A word every half second; a dot is half a second without one."""
    return [TimedWord(word, place * STEP_SECONDS) for place, word in enumerate(text.split()) if word != "."]


@pytest.mark.parametrize(
    ("reference", "written", "seconds"),
    [
        ("a b c d e f g h", "a b c d e f g h", []),
        ("a b c d e f g h", "a . . . . f g h", [2.0]),
        ("a b c d e f g h", "a . . . e f g h", []),
        ("a b c d e f g h", ". . . . e f g h", [2.0]),
        ("a b c d e f g h", "a b c d . . . .", [2.0]),
        ("a b c d e f g h", ". . . . . . . .", [4.0]),
        ("a b c d e f g h", "a x y z v f g h", []),
        ("a b c d e f g h", "a . x . . f g h", []),
        ("a b c d e f g h", "a x . . . . g h", [2.0]),
        ("a b . . . . . h", "a . . . . . . h", []),
        ("a b c d . . . h", "a . . . . . . h", []),
        ("", "a b", []),
    ],
)
def test_a_hole_is_a_run_of_missing_words_longer_than_a_second_and_a_half(
    reference: str, written: str, seconds: list[float]
) -> None:
    assert missing_runs(spoken(reference), spoken(written)) == seconds
