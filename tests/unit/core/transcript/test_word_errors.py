import random
from itertools import pairwise

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.transcript.word_errors import (
    TimedWord,
    WordErrors,
    drift_seconds,
    matched_words,
    spoken_words,
    word_errors,
)

texts = st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=12)


@given(texts, texts)
def test_errors_are_those_that_jiwer_counts(reference: list[str], written: list[str]) -> None:
    found = word_errors(reference, written)

    assert found.percent == pytest.approx(100 * jiwer.wer(" ".join(reference), " ".join(written)))


def assert_aligned(reference: list[str], written: list[str]) -> None:
    pairs = matched_words(reference, written)
    assert all(reference[one] == written[other] for one, other in pairs)
    edges = [(-1, -1), *pairs, (len(reference), len(written))]
    gaps = [(after[0] - before[0] - 1, after[1] - before[1] - 1) for before, after in pairwise(edges)]
    assert all(min(gap) >= 0 for gap in gaps)
    assert sum(map(max, gaps)) == word_errors(reference, written).errors


@given(texts | st.just([]), texts | st.just([]))
def test_matched_words_are_those_of_an_alignment_with_the_fewest_errors(
    reference: list[str], written: list[str]
) -> None:
    assert_aligned(reference, written)


def test_long_texts_are_aligned_without_a_table_of_all_words() -> None:
    rng = random.Random(1)
    reference = [f"w{rng.randrange(300)}" for _ in range(3_000)]
    written = [word if rng.random() < 0.8 else "other" for word in reference if rng.random() < 0.9]

    assert_aligned(reference, written)


def test_an_empty_transcript_of_silence_has_no_error() -> None:
    assert word_errors([], []).percent == 0
    assert word_errors([], ["a"]).errors == 1
    assert word_errors(["a", "b"], []).percent == 100


def test_errors_of_several_files_add_up_by_their_words() -> None:
    assert WordErrors(errors=1, words=10) + WordErrors(errors=2, words=5) == WordErrors(errors=3, words=15)


def test_words_are_compared_in_lower_case_without_punctuation_in_any_language() -> None:
    assert spoken_words(
        "Don't—stop, Übergröße 42! rock\N{RIGHT SINGLE QUOTATION MARK}n\N{RIGHT SINGLE QUOTATION MARK}roll"
    ) == ["don't", "stop", "übergröße", "42", "rock'n'roll"]


def spoken_at(drift: float) -> list[TimedWord]:
    """A word a second for 1,000 s, later and later by `drift` in all."""
    return [TimedWord(f"w{number}", number * (1 + drift / 1_000)) for number in range(1_000)]


@pytest.mark.parametrize("drift", [0.0, 0.5, -2.0])
def test_drift_is_how_much_later_the_last_words_are_than_the_first(drift: float) -> None:
    assert drift_seconds(spoken_at(0), spoken_at(drift)) == pytest.approx(0.9 * drift, abs=0.01)


def test_a_constant_delay_is_no_drift_and_wrong_words_do_not_count() -> None:
    late = [TimedWord("wrong" if number % 7 == 0 else one.text, one.start_seconds + 0.2)
            for number, one in enumerate(spoken_at(0))]  # fmt: skip

    assert drift_seconds(spoken_at(0), late) == pytest.approx(0)


@pytest.mark.parametrize("words", [[], spoken_at(0)[:10], [TimedWord("yes", float(second)) for second in range(99)]])
def test_without_enough_words_to_pair_there_is_no_drift(words: list[TimedWord]) -> None:
    assert drift_seconds(words, words) is None
