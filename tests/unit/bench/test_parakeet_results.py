"""Comparison of engines: agreement of tokens, and the best of several ways."""

from hypothesis import given
from hypothesis import strategies as st

from bench.parakeet.results import ComparedWay, agreement, edits

TOKENS = st.lists(st.sampled_from("abc"), max_size=8)


def test_edits_are_counted_exactly() -> None:
    assert edits("kitten", "sitting") == 3
    assert edits("", "abc") == 3
    assert edits("abc", "abc") == 0


@given(TOKENS, TOKENS, TOKENS)
def test_edits_are_a_distance(one: list[str], other: list[str], third: list[str]) -> None:
    assert edits(one, other) == edits(other, one)
    assert (edits(one, other) == 0) == (one == other)
    assert edits(one, third) <= edits(one, other) + edits(other, third)


def test_agreement_counts_windows_and_tokens_of_the_reference() -> None:
    found = agreement([["a", "b"], ["c"], []], [["a", "b"], ["c", "d"], []])

    assert (found.windows, found.equal_windows, found.tokens, found.wrong_tokens) == (3, 2, 4, 1)
    assert found.wrong_share == 0.25


def test_no_tokens_at_all_is_full_agreement() -> None:
    assert agreement([[]], [[]]).wrong_share == 0


def test_of_several_turns_the_median_counts() -> None:
    assert ComparedWay(seconds=(3.0, 9.0, 1.0), peak_bytes=1).median_seconds == 3.0
