import pytest

from worker.core.transcript.keyterms import SpokenText, with_sound


@pytest.mark.parametrize(
    ("text", "keyterm", "count"),
    [
        ("We met Zed today.", "zed", 1),
        ("ZED, zed; Zed!", "Zed", 3),
        ("zed zed", "zed", 2),
        ("zed zed zed", "zed zed", 1),
        ("the zedder", "zed", 0),
        ("Zed's sword", "Zed", 1),
        ("they don't", "Don", 0),
        ("McDonald\u2019s", "McDonald's", 1),
        ("ONeil", "O'Neil", 1),
        ("Counter Strike", "Counter-Strike", 1),
        ("counter, strike", "Counter-Strike", 1),
        ("Harbor. Nine", "Harbor Nine", 1),
        ("harbor and nine", "Harbor Nine", 0),
        ("a|b or a b", "a|b", 2),
        ("(zed)+", "[zed]*", 1),
        ("anything", ".*", 0),
        ("anything", "", 0),
        ("STRASSE", "straße", 1),
        ("Zoe\u0308", "zoë", 1),
        ("", "zed", 0),
    ],
)
def test_a_keyterm_is_counted_by_its_whole_words(text: str, keyterm: str, count: int) -> None:
    assert SpokenText(text.split()).count(keyterm) == count


def test_a_keyterm_is_found_over_a_seam_of_paragraphs() -> None:
    text = SpokenText(["Harbor", "Nine.", "Zed"])

    assert text.found(("Zed", "nine", "harbor nine zed", "Nine Harbor")) == ("Zed", "nine", "harbor nine zed")


def test_terms_without_a_letter_or_digit_have_no_sound() -> None:
    assert with_sound((".*", "C++", "!?", "7", "名前", "🎮")) == ("C++", "7", "名前")
