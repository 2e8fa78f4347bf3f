from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from schemas.speech import Word
from worker.adapters.parakeet.network.words import Calibration, Token, words_of


def heard(*tokens: Token, window_seconds: float = 10.0) -> tuple[Word, ...]:
    return words_of(tokens, frame_seconds=0.08, window_seconds=window_seconds)


def test_a_word_lasts_from_its_first_piece_to_the_end_of_its_last() -> None:
    words = heard(Token("▁win", 3, 1, 0.9), Token("dow", 4, 2, 0.8))

    assert words == (Word("window", 3 * 0.08, 6 * 0.08, 0.8),)


def test_a_piece_with_the_mark_begins_a_word() -> None:
    words = heard(Token("▁the", 0, 1, 0.9), Token("▁red", 2, 1, 0.9), Token("▁box", 4, 1, 0.9))

    assert [word.text for word in words] == ["the", "red", "box"]


def test_a_mark_alone_begins_the_word_that_follows() -> None:
    words = heard(Token("▁the", 0, 1, 0.9), Token("▁", 2, 0, 0.5), Token("box", 3, 1, 0.9))

    assert words[1] == Word("box", 2 * 0.08, 4 * 0.08, 0.9)


def test_late_and_doubtful_punctuation_moves_neither_end_nor_confidence() -> None:
    words = heard(Token("▁box", 0, 2, 0.9), Token(".", 30, 1, 0.2))

    assert words == (Word("box.", 0.0, 2 * 0.08, 0.9),)


def test_punctuation_without_a_word_before_it_is_kept_as_it_is() -> None:
    words = heard(Token(".", 5, 1, 0.4))

    assert words == (Word(".", 5 * 0.08, 6 * 0.08, 0.4),)


def test_a_word_whose_pieces_last_no_frame_ends_where_it_starts() -> None:
    words = heard(Token("▁a", 5, 0, 0.7))

    assert words == (Word("a", 0.4, 0.4, 0.7),)


def test_no_word_ends_after_its_window() -> None:
    words = heard(Token("▁late", 12, 4, 0.9), window_seconds=1.0)

    assert words == (Word("late", 12 * 0.08, 1.0, 0.9),)


def test_no_tokens_are_no_words() -> None:
    assert heard() == ()
    assert heard(Token("▁", 0, 1, 0.9)) == ()


pieces = st.sampled_from(["▁", "▁the", "▁Re", "d", "box", ".", "?", "▁5", ","])


@given(st.lists(st.tuples(pieces, st.integers(0, 4), st.integers(0, 4), st.floats(0, 1))), st.floats(0.1, 40))
def test_words_hold_every_piece_in_order_with_times_that_make_sense(
    rows: list[tuple[str, int, int, float]], window_seconds: float
) -> None:
    frame, tokens = 0, []
    for piece, gap, frames, confidence in rows:
        tokens.append(Token(piece, frame := frame + gap, frames, confidence))

    words = heard(*tokens, window_seconds=window_seconds)

    assert "".join(word.text for word in words) == "".join(token.piece for token in tokens).replace("▁", "")
    assert all(0 <= word.start_seconds <= word.end_seconds <= window_seconds for word in words)
    assert all(0 <= word.confidence <= 1 for word in words)
    assert all(a.start_seconds <= b.start_seconds for a, b in pairwise(words))


def test_a_calibration_changes_confidences_alone() -> None:
    tokens = (Token("▁win", 3, 1, 0.9), Token("dow", 4, 2, 0.8), Token(".", 6, 0, 0.1), Token("▁a", 8, 1, 0.6))
    calibration = Calibration(temperature=2.0, near=0.3, bias=-0.5)

    plain = heard(*tokens)
    calibrated = words_of(tokens, frame_seconds=0.08, window_seconds=10.0, calibration=calibration)

    assert [replace(word, confidence=0.0) for word in calibrated] == [replace(word, confidence=0.0) for word in plain]
    assert [word.confidence for word in calibrated] == calibration.confidences([(0.9, 0.8), (0.6,)])
