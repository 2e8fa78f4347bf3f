import pytest

from worker.adapters.parakeet.network.keyterm_automaton import Speller, spelling, spelling_of_piece

PIECES = tuple(map(spelling_of_piece, ("<unk>", "▁", "▁har", "bor", "b", "or", "▁N", "ine", "<0xCE>")))


@pytest.mark.parametrize("term", ["harbor", "Harbor", "HARBOR nine", "  harbor\u00a0 nine ", "orb"])
def test_a_term_is_spelled_in_any_case_and_any_split(term: str) -> None:
    assert Speller(PIECES).can_spell(spelling(term))


@pytest.mark.parametrize("term", ["harbour", "Ω", "unk", "", "   ", "<unk>"])
def test_a_term_that_no_split_spells_is_named(term: str) -> None:
    assert not Speller(PIECES).can_spell(spelling(term))


def test_words_are_marked_and_composed() -> None:
    assert spelling(" Cafe\u0301  ARLO ") == "▁café▁arlo"
