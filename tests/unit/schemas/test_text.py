import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.text import plain, plain_json, plain_lines
from tests.support.hostile_text import HOSTILE, hostile_text, is_visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("gs://bucket/Zoë 1.mp3", "gs://bucket/Zoë 1.mp3"),
        ("日本語 العربية 👍", "日本語 العربية 👍"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\x9b31m\x7f", r"\x9b31m\x7f"),
        ("a\r\nb\tc", r"a\r\nb\tc"),
        ("evil\u202egpj.exe", r"evil\u202egpj.exe"),
        ("a\u200bb\ufeff\u2066", r"a\u200bb\ufeff\u2066"),
        ("\U000e0041\ud800\ufe0f", r"\U000e0041\ud800\ufe0f"),
        ("[red]x[/b]", "[red]x[/b]"),
    ],
)
def test_what_acts_is_shown_as_its_escape_and_what_is_seen_stays(text: str, shown: str) -> None:
    assert plain(text) == shown


@given(text=hostile_text | st.text(st.characters()))
def test_nothing_invisible_is_left_of_any_text(text: str) -> None:
    assert is_visible(plain(text))
    assert is_visible(plain_lines(text).replace("\n", ""))
    assert json.loads(plain_json(text)) == text
    assert is_visible(plain_json(text))
    assert plain_json(text).isascii()


@given(text=st.text(st.characters()))
def test_no_control_format_or_separator_character_is_left(text: str) -> None:
    left = {unicodedata.category(character) for character in plain(text)}

    assert not left & {"Cc", "Cf", "Cs", "Zl", "Zp"}


@pytest.mark.parametrize("fragment", HOSTILE)
def test_each_known_trick_is_made_visible(fragment: str) -> None:
    assert is_visible(plain(f"a{fragment}b"))


def test_long_text_is_cut_where_that_is_asked_for() -> None:
    assert plain("x" * 100, 10) == "xxxxxxxxx…"
    assert plain("x" * 10, 10) == "x" * 10
