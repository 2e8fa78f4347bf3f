"""Texts that attack the terminal or page that shows them."""

import re

from hypothesis import strategies as st

HOSTILE = (
    "\x1b[2J\x1b[H",  # clears the screen
    "\x1b]0;owned\x07",  # sets the title
    "\x1b]8;;http://evil\x1b\\click\x1b]8;;\x1b\\",  # a hyperlink of the terminal
    "\x9b31m",  # the same as an escape sequence, in one C1 character
    "\x90q\x9c",
    "\x00\x07\x08\x0b\x0c\x7f",
    "\r\nforged line",
    "\u202e3pm.exe\u202c",  # turns text around
    "\u2066\u2067\u2068\u2069\u061c\u200e\u200f",
    "\u200b\u200c\u200d\u2060\ufeff\xad\u034f\u180e\u3164\u115f",  # without width
    "\u2028\u2029",
    "\U000e0041\U000e007f\ufe0f",
    "[/b]",
    "[red]",
    "[link=http://evil]here[/link]",
    "[b",
    "\\[b]\\",
    ":boom:",
    "<script>alert(1)</script>",
)
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff\U000e0000-\U000e0fff]"
)
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")

hostile_text = st.lists(st.sampled_from(HOSTILE) | st.text(st.characters(), max_size=4), min_size=1, max_size=4).map(
    "".join
)
hostile_unicode = st.lists(
    st.sampled_from(HOSTILE) | st.text(st.characters(exclude_categories=["Cs"]), max_size=4), min_size=1, max_size=4
).map("".join)
"""The same as it can travel in a message, where there are no lone surrogates."""


def is_visible(text: str) -> bool:
    """Return True if the text has no control or invisible character."""
    return not _UNSEEN.search(text)


def without_colours(output: str) -> str:
    """Return a terminal's output without its line feeds and our own colours."""
    return _COLOURS.sub("", output).replace("\n", "")
