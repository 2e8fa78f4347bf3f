"""The README is held to the code: its example, its table of settings, its map."""

import re
from enum import Enum
from pathlib import Path

from worker.settings import fields

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def shown(default: object) -> str:
    if default in (None, "", frozenset()):
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    return str(default.value if isinstance(default, Enum) else default)


def settings_table() -> str:
    """Return the text between the settings marks; paste it there when the test fails."""
    rows = [f"| `{variable}` | {shown(field.default)} | {field.description} |" for variable, _, field in fields()]
    return "\n".join(["| variable | default | meaning |", "|---|---|---|", *rows])


def test_the_table_of_settings_is_that_of_the_code() -> None:
    table = README.split("<!-- settings -->\n")[1].split("\n<!-- /settings -->")[0]

    assert table == settings_table()


def test_the_example_in_the_readme_is_the_one_that_is_run() -> None:
    block = re.search(r"```python\n(.*?)```", README, re.DOTALL)

    assert block is not None
    assert (ROOT / "examples" / "readme.py").read_text().endswith(block[1])


def test_every_path_that_the_readme_names_is_there() -> None:
    named = re.findall(r"`((?:worker|schemas|tests|examples|deploy)/[\w./]*)`|\]\(([\w./]+)\)", README)

    missing = [path for pair in named for path in pair if path and not (ROOT / path).exists()]

    assert missing == []
