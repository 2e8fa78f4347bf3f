"""The rules of the house that no linter knows."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for room in ("worker", "schemas") for path in (ROOT / room).rglob("*.py"))
MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 60


def functions_of(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text())
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_and_its_functions_are_short_enough_to_read(path: Path) -> None:
    long_functions = [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in functions_of(path)
        if node.end_lineno and node.end_lineno - node.lineno + 1 > MOST_LINES_OF_A_FUNCTION
    ]

    assert len(path.read_text().splitlines()) <= MOST_LINES_OF_A_FILE
    assert long_functions == []


def broad_handlers(source: str) -> list[int]:
    """Lines that catch any error: bare handlers, Exception alone or in a tuple, and `suppress(Exception)`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ExceptHandler(type=None):
                found.append(node.lineno)
            case ast.ExceptHandler(type=ast.expr() as caught):
                found += [node.lineno] * _is_broad(caught)
            case ast.Call(func=ast.Name(id="suppress") | ast.Attribute(attr="suppress"), args=args):
                found += [node.lineno] * any(map(_is_broad, args))
    return found


def _is_broad(errors: ast.expr) -> bool:
    return any(isinstance(part, ast.Name) and part.id in {"Exception", "BaseException"} for part in ast.walk(errors))


@pytest.mark.parametrize(
    "source",
    [
        "try: pass\nexcept: pass",
        "try: pass\nexcept Exception: pass",
        "try: pass\nexcept (OSError, BaseException): pass",
        "with suppress(Exception): pass",
        "with contextlib.suppress(OSError, Exception): pass",
    ],
)
def test_a_broad_handler_is_found_in_every_form(source: str) -> None:
    assert len(broad_handlers(source)) == 1


def test_everything_is_caught_in_the_consumer_and_at_the_end_of_a_command_alone() -> None:
    places = {str(path.relative_to(ROOT)) for path in SOURCES if broad_handlers(path.read_text())}

    assert places <= {"worker/core/tasks.py", "worker/commands/group.py"}


def takers_of_all_settings() -> list[str]:
    """Functions with a parameter, and classes with a field, that is the whole `Settings`; strings count as types."""
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
                named = {part.id for part in ast.walk(node.annotation) if isinstance(part, ast.Name)}
                quoted = {part.value for part in ast.walk(node.annotation) if isinstance(part, ast.Constant)}
                if "Settings" in named | quoted:
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    return found


def test_only_the_two_commands_that_split_the_settings_take_all_of_them() -> None:
    takers = [place.split(":")[0] for place in takers_of_all_settings()]

    assert takers == ["worker/app/worker.py", "worker/commands/check.py"]


def test_no_two_public_classes_share_a_name() -> None:
    # adapters/parakeet is apart: an oracle there may bear the name of what it judges
    files = [*SOURCES, *sorted((ROOT / "bench").rglob("*.py"))]
    places: dict[str, list[str]] = {}
    for path in files:
        if "parakeet" not in path.parts:
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    places.setdefault(node.name, []).append(str(path.relative_to(ROOT)))

    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_no_files_import_each_other_not_even_late() -> None:
    graph = grimp.build_graph("worker", "schemas", cache_dir=None)

    TopologicalSorter({name: graph.find_modules_directly_imported_by(name) for name in graph.modules}).prepare()
