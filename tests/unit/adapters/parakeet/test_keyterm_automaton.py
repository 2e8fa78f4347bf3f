"""The automaton of keyterms, beside a plain search that reads the text so far again for every piece."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.adapters.parakeet.network.keyterm_automaton import Automaton, Vocabulary

WEIGHT = 3.0
LETTERS = ("a", "b", "n")
PIECES = (
    "<unk>",
    "▁",
    *LETTERS,
    "A",
    "▁a",
    "▁A",
    "▁an",
    "an",
    "na",
    "▁ann",
    "▁B",
    "ban",
    "▁bana",
    "nana",
    ".",
    "▁n",
    "Ω",
)
TERMS = st.lists(st.lists(st.text("abnAB", min_size=1, max_size=5), min_size=1, max_size=3).map(" ".join), max_size=8)
TEXTS = st.lists(st.integers(0, len(PIECES) - 1), max_size=30)


def plain_boost(terms: Sequence[str], before: str, piece: str) -> tuple[str, float]:
    """Return the longest prefix of a term that the text ends with after the piece, and the boost of the piece."""
    spelled = [way for term in terms for way in written_ways(term)]
    starts = [before[place:] for place in range(len(before))] + [""]
    for start in starts:
        for way in piece_ways(piece):
            reached = start + way
            through = [term for term in spelled if term.startswith(reached)]
            if through and any(term.startswith(start) for term in spelled):
                if not start and any(before.endswith(term) and term.startswith(reached) for term in spelled):
                    return reached, 0.0
                kept = max((letters(term) for term in spelled if start.startswith(term)), default=0)
                return reached, WEIGHT * max(share(term, reached, kept) for term in through)
    return "", 0.0


def written_ways(term: str) -> set[str]:
    words = [word[0] + word[1:].lower() for word in term.split()]
    if any(word[0].isupper() for word in words):
        return {"".join(f"▁{word}" for word in words)}
    capitals = [word.capitalize() for word in words]
    return {"".join(f"▁{word}" for word in ways) for ways in (words, [capitals[0], *words[1:]], capitals)}


def piece_ways(piece: str) -> list[str]:
    """Return the piece with its first letter as it is, and with a small one where it may be inside a word."""
    if piece.startswith("▁"):
        return [piece[:2] + piece[2:].lower()]
    return [piece[:1] + piece[1:].lower(), piece.lower()]


def share(term: str, reached: str, kept: int) -> float:
    """Return the part that is matched of the first word of the term that ends after the letters kept."""
    if letters(reached.rpartition("▁")[0]) > kept:
        return 1.0
    words = term.split("▁")[1:]
    end = next(end for end in (letters("".join(words[:count])) for count in range(1, len(words) + 1)) if end > kept)
    end = max(end, letters(reached.rpartition("▁")[0]) + len(words[reached.count("▁") - 1]))
    return min(1.0, (letters(reached) - kept) / max(3, end - kept))


def letters(text: str) -> int:
    return len(text.replace("▁", ""))


def boost_of(automaton: Automaton, state: int, label: int) -> tuple[int, float]:
    """Return the next state and the boost, as the tables say."""
    own = (automaton.labels[state] == label).nonzero()[0]
    boost = float(automaton.root_boosts[label])
    if not len(own):
        return int(automaton.root_targets[label]), boost
    return int(automaton.targets[state, own[0]]), boost + float(automaton.boosts[state, own[0]])


@given(terms=TERMS, text=TEXTS)
def test_tables_give_the_boosts_of_a_plain_search(terms: list[str], text: list[int]) -> None:
    automaton = Vocabulary(PIECES).automaton(terms, WEIGHT)
    state, before = 0, ""

    for label in text:
        for other in range(1, len(PIECES)):
            expected = plain_boost(terms, before, PIECES[other])[1]
            assert boost_of(automaton, state, other)[1] == pytest.approx(expected, abs=1e-5), PIECES[other]
        state, before = (
            boost_of(automaton, state, label)[0],
            plain_boost(terms, before, PIECES[label])[0] if label else "",
        )


@given(terms=TERMS, text=TEXTS)
def test_no_label_is_boosted_by_more_than_the_weight_and_the_blank_never(terms: list[str], text: list[int]) -> None:
    automaton = Vocabulary(PIECES).automaton(terms, WEIGHT)
    state = 0

    for label in text:
        boosts = [boost_of(automaton, state, other)[1] for other in range(len(PIECES) + 1)]
        assert 0 <= min(boosts) <= max(boosts) <= WEIGHT + 1e-6
        assert boosts[-1] == boosts[0] == 0
        state = boost_of(automaton, state, label)[0]


def boosts_along(terms: Sequence[str], *pieces: str) -> list[float]:
    automaton, state, boosts = Vocabulary(PIECES).automaton(terms, WEIGHT), 0, []
    for piece in pieces:
        state, boost = boost_of(automaton, state, PIECES.index(piece))
        boosts.append(round(boost, 3))
    return boosts


@pytest.mark.parametrize("split", [("▁bana", "na"), ("▁B", "a", "nana"), ("▁", "b", "an", "A", "n", "a")], ids="".join)
def test_every_split_of_a_term_ends_with_the_whole_boost(split: tuple[str, ...]) -> None:
    boosts = boosts_along(["banana"], *split)

    assert boosts == sorted(boosts)
    assert boosts[-1] == WEIGHT


def test_a_match_that_breaks_off_leaves_no_boost() -> None:
    assert boosts_along(["banana"], "▁bana", "b", "na") == [2.0, 0.0, 0.0]


def test_a_term_that_has_just_ended_is_not_begun_again_by_its_boost() -> None:
    assert boosts_along(["banana", "nan"], "▁bana", "na", "▁bana") == [2.0, 3.0, 0.0]
    assert boosts_along(["banana", "nan"], "▁bana", "na", "▁n") == [2.0, 3.0, 1.0]


def test_a_term_inside_another_is_found_at_its_own_word() -> None:
    assert boosts_along(["nan ban", "ban ana"], "▁n", "an", "▁", "ban", "▁an", "a") == [1.0, 3.0, 3.0, 3.0, 3.0, 3.0]


def test_a_term_that_goes_on_after_another_has_the_boost_of_what_is_new() -> None:
    assert boosts_along(["ann", "anna"], "▁ann", "a") == [3.0, 1.0]


@pytest.mark.parametrize(
    ("term", "split", "last"),
    [
        ("Banana", ("▁B", "a", "nana"), 3.0),
        ("BANANA", ("▁B", "a", "na", "n", "A"), 3.0),
        ("Banana", ("▁bana", "na"), 0.0),
        ("banana", ("▁B", "an", "a"), 2.0),
        ("Ann Ban", ("▁A", "n", "n", "▁B", "an"), 3.0),
        ("Ann Ban", ("▁ann", "▁B"), 0.0),
        ("Nana", ("▁n", "a"), 1.5),
    ],
    ids=[
        "as given",
        "capitals inside",
        "small",
        "given small",
        "two words",
        "one of two",
        "a capital that no piece has",
    ],
)
def test_a_capital_that_begins_a_word_is_kept_where_the_pieces_have_it(
    term: str, split: tuple[str, ...], last: float
) -> None:
    assert boosts_along([term], *split)[-1] == last


def test_a_single_letter_has_a_third_of_the_boost() -> None:
    assert boosts_along(["a"], "▁A") == [1.0]


def test_a_mark_alone_has_no_boost() -> None:
    assert boosts_along(["banana"], "▁") == [0.0]


def test_the_tables_of_the_worst_list_stay_small() -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = [*letters, *(f"▁{one}" for one in letters), *(one + other for one in letters for other in letters), "▁"]
    terms = [f"{letters * 2}{number:08}" for number in range(100)]

    automaton = Vocabulary(pieces).automaton(terms, WEIGHT)

    tables = automaton.labels, automaton.targets, automaton.boosts
    assert sum(table.nbytes for table in tables) < 32 * 2**20
