"""Escaping of text from outside for terminals, tables, logs and pages.

Ids, addresses and messages come from publishers, services and file systems. Printed as they are, they could clear a
screen, forge lines, hide text or reverse it. Nothing is refused or lost: each control or invisible character becomes
its escape sequence. Standard library only, for commands that must start fast.
"""

import json
import re
from typing import Any

_INVISIBLE = (
    r"\x00-\x1f\x7f-\x9f"  # C0, DEL, C1: escape sequences, line ends, cursor movements
    r"\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"  # without width: joiners, fillers, marks
    r"\u2028\u2029\u202a-\u202e\u2060-\u206f"  # line and paragraph ends, bidirectional overrides and isolates
    r"\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd\U00013430-\U0001345f"  # of scripts
    r"\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"  # fillers, surrogates, selectors, annotations
    r"\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"  # shorthand and music formats, tags
)
_ONE = re.compile(f"[{_INVISIBLE}]")
_ONE_IN_LINES = re.compile(rf"(?!\n)[{_INVISIBLE}]")


def plain(text: object, most: int | None = None) -> str:
    r"""Return the text on one line, with control and invisible characters escaped: `\x1b`, `\u202e`.

    With `most`, at most about that many characters, with an ellipsis in place of the rest.
    """
    return _ONE.sub(_escape, _cut(str(text), most))


def plain_lines(text: object) -> str:
    """Return the text escaped like `plain`, but with its line feeds kept."""
    return _ONE_IN_LINES.sub(_escape, str(text))


def plain_json(document: Any, *, default: Any = None, sort_keys: bool = False, indent: int | None = None) -> str:
    """Return the document as JSON of visible ASCII that parses to the same strings."""
    text = json.dumps(document, default=default, sort_keys=sort_keys, indent=indent)
    return text.replace("\x7f", "\\u007f")  # the one control character that json writes as it is


def _cut(text: str, most: int | None) -> str:
    return text if most is None or len(text) <= most else text[: most - 1] + "…"


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()
