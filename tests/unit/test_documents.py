"""README and documents are held to the code: the example, the table of settings, paths, links and commands."""

import re
import shlex
from collections.abc import Iterator
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from worker.cli.main import app
from worker.commands.group import UsageError
from worker.settings import fields

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/*.md"), *ROOT.glob(".github/*.md")])
ELSEWHERE = frozenset(
    {"gcloud", "kubectl", "curl", "pip", "export", "printf", "echo", "grep", "pytest", "-n", "promises:", "error"}
)
"""First words of lines that need the cloud or the reader's own machine, or that show output."""


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
    page = (ROOT / "docs" / "settings.md").read_text()

    table = page.split("<!-- settings -->\n")[1].split("\n<!-- /settings -->")[0]

    assert table == settings_table()


def test_the_example_in_the_readme_is_the_one_that_is_run() -> None:
    block = re.search(r"```python\n(.*?)```", README, re.DOTALL)

    assert block is not None
    assert (ROOT / "examples" / "readme.py").read_text().endswith(block[1])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_and_link_of_a_page_exists(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    paths = re.findall(r"`((?:worker|schemas|tests|examples|deploy|bench|docs)/[\w./-]*)`", text)
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]

    missing = [path for path in paths if not (ROOT / path).exists()]
    missing += [link for link in links if link and not (page.parent / link).exists()]

    assert missing == []


def commands_of(page: Path) -> Iterator[str]:
    """Yield the command lines of a page's indented and fenced blocks, without comments and assignments."""
    text = page.read_text().replace("\\\n", " ")
    fenced = re.findall(r"^```(?:bash|sh)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    indented = re.findall(r"^ {4}(\S.*)$", prose, re.MULTILINE)
    for line in [line for block in fenced for line in block.splitlines()] + indented:
        command = re.sub(r"^(?:\w+=(?:\"[^\"]*\"|\S*)(?: +|$))+", "", line.split("  #")[0].split(" # ")[0].strip())
        yield command.removeprefix("$ ").removeprefix(".venv/bin/")


def parse(command: str) -> None:
    """Parse a command of `klipstream-worker` without running it. Raises `UsageError`."""
    context, current = None, typer.main.get_command(app)
    words = shlex.split(command)[1:]
    while isinstance(current, TyperGroup):
        context = current.make_context(current.name, list(words), parent=context)
        _, current, words = current.resolve_command(context, [*context._protected_args, *context.args])
        assert current is not None
    current.make_context(current.name, list(words), parent=context)


def fault_of(command: str) -> str | None:
    """Return what is wrong with a command line of ours; None for a good one, or one that is not ours to check."""
    inner = re.sub(r"^deploy/env\.sh \w+ ", "", command)
    match inner.split():
        case ["klipstream-worker", *_]:
            return parse_fault(inner)
        case ["make", target, *_]:
            known = re.search(rf"^{re.escape(target)}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
            return None if known else "no such target"
        case ["python" | "python3", "-m", module, *_]:
            return None if list(ROOT.glob(module.replace(".", "/") + "*")) else "no such module"
        case ["python" | "python3", script, *_] | [script, *_] if "/" in script:
            return None if (ROOT / script).exists() else "no such script"
        case [first, *_] if first not in ELSEWHERE:
            return "neither one of ours nor marked as needing the cloud"
    return None


def parse_fault(command: str) -> str | None:
    """Return the usage error of a command of `klipstream-worker`, or None."""
    try:
        with suppress(typer.Exit, SystemExit):  # of --help and --version
            parse(command)
    except UsageError as error:
        fault = str(error.format_message())
        return None if "does not exist" in fault else fault  # the reader's own files
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_exists_with_its_options(page: Path) -> None:
    wrong = [f"{command}: {fault}" for command in commands_of(page) if (fault := fault_of(command))]

    assert wrong == []


def examples_of(command: Any) -> Iterator[str]:
    for line in (command.epilog or "").splitlines():
        if line.startswith("klipstream-worker "):
            yield line
    for one in getattr(command, "commands", {}).values():
        yield from examples_of(one)


def test_every_example_in_a_help_text_exists_with_its_options() -> None:
    found = list(examples_of(typer.main.get_command(app)))

    assert len(found) > 20
    assert [f"{line}: {fault}" for line in found if (fault := parse_fault(line))] == []
