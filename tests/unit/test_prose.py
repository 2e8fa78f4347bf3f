"""The English of the code: docstrings, comments, strings that people read, and test names, against two short lists.

The rule is docs/develop.md: short declarative sentences, the field's own words, the subject named. A list cannot judge
a sentence, but it stops the habits that made this code hard to read. Code in backticks and identifiers are not prose.
"""

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

OPENINGS = ("What", "Whether", "How", "Of", "Who", "Whose", "Whom", "Which", "Where", "That", "Nobody")
"""A docstring that opens with one is a noun clause; it should be a verb (functions) or a noun phrase."""

INSTEAD = {
    r"nobody|whoever|anybody|somebody": "name the process, caller or reader, or use the passive",
    r"deaf|shy|owes?|owed|owing": "name the mechanism: ignores, conservative, must still publish",
    r"told|tells?|tell": "receives, says, reports, returns",
    r"hears?|heard|hearing": "transcribe, recognise",
    r"said|unsaid": "returned, stated, logged",
    r"(?:is|are|was|were) given(?! up)": "receives, takes",
    r"stands?(?!-)|stood|standing": "is, stays, exists",
    r"lies": "is, are",
    r"for ever|so many|by and by|at one stroke|under way|shall|hitherto|whence": "without end, in flight, must",
    r"looks? at the clock|takes? (?:his|its|their) word|comes? to nothing|came to nothing": "name the mechanism",
}
WORDS = re.compile("|".join(rf"(?:\b(?:{words})\b)" for words in INSTEAD), re.IGNORECASE)

DATA = ("tests/unit/test_prose.py", "worker/embedded/data/", "tests/data/")
"""The lists themselves, and texts of speech."""

ON_THE_WIRE = re.compile(r"\bstands twice\b")
"""Part of a violation that golden files hold: messages do not change."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prose:
    """A text for people, and the place where it is written."""

    line: int
    kind: str
    text: str


def prose_of(source: str) -> Iterator[Prose]:
    """Yield every docstring, comment, readable string and test name of a module."""
    tree = ast.parse(source)
    documentation = set()
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text)) as constant):
                documentation.add(id(constant))
                yield Prose(line=node.lineno, kind="docstring", text=text)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) if name.startswith("test_"):
                yield Prose(line=node.lineno, kind="test name", text=name.removeprefix("test_").replace("_", " "))
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(text)) if id(node) not in documentation and _is_readable(text):
                yield Prose(line=node.lineno, kind="string", text=text)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield Prose(line=token.start[0], kind="comment", text=token.string.lstrip("# "))


def _is_readable(text: str) -> bool:
    words = text.split()
    return len(words) >= 3 and sum(word.isalpha() for word in words) >= len(words) / 2


def faults(prose: Prose) -> Iterator[str]:
    """Yield what is wrong with a text, and the cure."""
    text = re.sub(r"`[^`]*`|https?://\S+", "", prose.text)
    if prose.kind == "docstring" and (opening := text.strip().split(" ")[0].strip(",.:")) in OPENINGS:
        yield f"opens with {opening!r}: begin with a verb, or with the thing itself"
    for found in WORDS.finditer(ON_THE_WIRE.sub("", text)):
        cure = next(cure for words, cure in INSTEAD.items() if re.fullmatch(words, found[0], re.IGNORECASE))
        yield f"{found[0]!r}: {cure}"


def python_files() -> list[str]:
    """Return every Python file of the repository whose prose is held to the lists."""
    if (ROOT / ".git").exists():
        listing = ["git", "ls-files", "*.py"]
        listed = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    else:  # in the image that the build tests, which has nothing but the checkout's files
        listed = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*.py")]
    return [name for name in sorted(listed) if not name.startswith((".", *DATA)) and (ROOT / name).exists()]


@pytest.mark.parametrize("name", python_files())
def test_prose_is_plain(name: str) -> None:
    wrong = [
        f"{name}:{prose.line}: {prose.kind}: {fault}"
        for prose in prose_of((ROOT / name).read_text("utf-8"))
        for fault in faults(prose)
    ]

    assert wrong == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('def f():\n    """What the engine owes."""\n', 2),
        ("x = 1  # nobody waits for it\n", 1),
        ('raise ValueError("the worker was told to stop")\n', 1),
        ("def test_nobody_is_asked() -> None: ...\n", 1),
        ('def f():\n    """Return `hear`, and `told`."""\n', 0),
        ('x = "told"\n', 0),
    ],
)
def test_the_lists_find_what_they_are_for(source: str, expected: int) -> None:
    found = [fault for prose in prose_of(source) for fault in faults(prose)]

    assert len(found) == expected
