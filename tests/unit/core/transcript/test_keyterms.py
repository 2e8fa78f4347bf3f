import pytest

from worker.core.transcript.spelling import compared_words, keyterms_in, with_sound
from worker.core.transcript.word_errors import KeytermScore, keyterm_score


@pytest.mark.parametrize(
    ("text", "keyterm", "is_found"),
    [
        ("We met Zed today.", "zed", True),
        ("ZED!", "Zed", True),
        ("the zedder", "zed", False),
        ("Zed's sword", "Zed", True),
        ("they don't", "Don", False),
        ("McDonald\u2019s", "McDonald's", True),
        ("ONeil", "O'Neil", True),
        ("Counter Strike", "Counter-Strike", True),
        ("counter, strike", "Counter-Strike", True),
        ("Harbor. Nine", "Harbor Nine", True),
        ("harbor and nine", "Harbor Nine", False),
        ("harbor ninety", "Harbor Nine", False),
        ("a b", "a|b", True),
        ("(zed)+", "[zed]*", True),
        ("anything", ".*", False),
        ("anything", "", False),
        ("STRASSE", "straße", True),
        ("Zoe\u0308", "zoë", True),
        ("", "zed", False),
    ],
)
def test_a_keyterm_is_found_by_its_whole_words(text: str, keyterm: str, is_found: bool) -> None:
    assert keyterms_in(text.split(), [keyterm]) == ((keyterm,) if is_found else ())


def test_a_keyterm_is_found_over_a_seam_of_paragraphs() -> None:
    text = ["Harbor", "Nine.", "Zed"]

    assert keyterms_in(text, ("Zed", "nine", "harbor nine zed", "Nine Harbor")) == ("Zed", "nine", "harbor nine zed")


def test_terms_without_a_letter_or_digit_have_no_sound() -> None:
    assert with_sound((".*", "C++", "!?", "7", "名前", "🎮")) == ("C++", "7", "名前")


@pytest.mark.parametrize(
    ("reference", "written", "score"),
    [
        ("Zed met Zed.", "zed met ned", KeytermScore(spoken=2, written=1, matched=1)),
        ("zed met ned", "ned met zed", KeytermScore(spoken=1, written=1, matched=0)),
        ("at harbor nine", "at harbor uh nine", KeytermScore(spoken=1, written=0, matched=0)),
        ("at harbor nine", "the harbor nine zed", KeytermScore(spoken=1, written=2, matched=1)),
        ("zed zed zed", "zed zed zed", KeytermScore(spoken=3, written=3, matched=3)),
        ("nothing", "nothing", KeytermScore()),
        ("", "", KeytermScore()),
    ],
)
def test_an_occurrence_counts_where_it_was_spoken_alone(reference: str, written: str, score: KeytermScore) -> None:
    spoken, found = compared_words(reference), compared_words(written)

    assert keyterm_score(("Zed", "Harbor Nine", ".*"), spoken, found) == score
