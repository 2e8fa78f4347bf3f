"""Output of commands: results go to stdout as text or JSON, problems to stderr with their remedy.

Text from outside is never printed unescaped: `cell`, `line` and `say` take text, not markup, and escape control
characters; so does every console of `out`.
"""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import typer
from pydantic import ValidationError
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from schemas.text import plain, plain_json, plain_lines
from worker.settings import Settings, problems, read_settings

if TYPE_CHECKING:
    from rich.progress import Progress

EXIT_FAILED = 1
EXIT_USAGE = 2

USUAL_WIDTH = 80
SECONDS_BETWEEN_LINES = 10.0
IN_ASCII = str.maketrans("─━█▒·…", "--#:..")
"""Our line art where the output's encoding is not Unicode; other characters are escaped there."""

TextPart: TypeAlias = str | tuple[str, str]
"""Text, or text and its style."""


def out() -> Console:
    """Return a console for results."""
    return _guarded(Console(soft_wrap=True, highlight=False, emoji=False))


def err() -> Console:
    """Return a console for remarks and for what moves, beside the results."""
    return _guarded(Console(stderr=True, highlight=False, soft_wrap=True, emoji=False))


def cell(value: object, style: str = "", *, most: int | None = None) -> Text:
    """Return any value as one line of visible text."""
    return Text(plain(value, most), style)


def line(*parts: TextPart) -> Text:
    """Return the parts joined as one line of visible text."""
    return Text.assemble(*(cell(part) if isinstance(part, str) else cell(*part) for part in parts))


def say(*parts: TextPart) -> None:
    """Print one line on stdout."""
    out().print(line(*parts))


def say_json(document: Mapping[str, Any]) -> None:
    """Print an object as one line of JSON, at once."""
    print(plain_json(document), flush=True)


def fail(message: str, code: int = EXIT_FAILED) -> NoReturn:
    """End the command with a message on stderr."""
    _to_stderr(("error", "bold red"), " ", message)
    raise typer.Exit(code)


def note(message: str) -> None:
    """Print a remark on stderr, beside the results."""
    _to_stderr(("note", "yellow"), " ", message)


def problem(message: str) -> None:
    """Print on stderr what is wrong with one of many things; the command goes on."""
    _to_stderr(("bad", "red"), " ", message)


def _to_stderr(*parts: TextPart) -> None:
    err().print(line(*parts))


def load_settings(defaults: Mapping[str, str] | None = None) -> Settings:
    """Return the environment as settings; a wrong variable ends the command and is named with its value."""
    try:
        return read_settings({**(defaults or {}), **os.environ})
    except ValidationError as exc:
        fail("; ".join(problems(exc)), EXIT_USAGE)


class ProgressView:
    """The progress of a long command on stderr: a plain line now and then."""

    def __init__(self) -> None:
        self._next = time.monotonic() + SECONDS_BETWEEN_LINES

    def __call__(self, text: str, share: float | None) -> None:
        """Show a text, and the share that is done where it is known."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + SECONDS_BETWEEN_LINES
            note(text if share is None else f"{text} ({share:.0%})")

    def aside(self) -> AbstractContextManager[None]:
        """Remove a bar while the block prints something else."""
        return nullcontext()


class _Bar(ProgressView):
    """A bar on a terminal."""

    def __init__(self, bar: "Progress") -> None:
        self._bar, self._task = bar, bar.add_task("", total=None)

    def __call__(self, text: str, share: float | None) -> None:
        total = None if share is None else 1.0
        self._bar.update(self._task, description=cell(text).markup, total=total, completed=share or 0.0)

    @contextmanager
    def aside(self) -> Iterator[None]:
        self._bar.stop()
        try:
            yield
        finally:
            self._bar.start()


@contextmanager
def progress(*, as_json: bool) -> Iterator[ProgressView]:
    """Show how far the command is; as lines where it prints JSON, which may come too fast for a bar."""
    if as_json or not sys.stderr.isatty():
        yield ProgressView()
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415  a terminal's alone

    columns = (BarColumn(bar_width=24), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=err(), transient=True) as bar:
        yield _Bar(bar)


def _guarded(console: Console) -> Console:
    console.width = console.width or USUAL_WIDTH  # COLUMNS may be 0
    console.push_render_hook(_Guard())
    return console


class _Guard(RenderHook):
    """The last door: whatever renders it, no text leaves with control characters or hyperlinks in it."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Wrap each."""
        return [_Guarded(each) for each in renderables]


class _Guarded:
    def __init__(self, renderable: ConsoleRenderable) -> None:
        self._renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self._renderable, options):
            text = segment.text.translate(IN_ASCII) if options.ascii_only else segment.text
            yield segment if segment.control else Segment(plain_lines(text), _unlinked(segment))


def _unlinked(segment: Segment) -> Style | None:
    return segment.style.update_link(None) if segment.style and segment.style.link else segment.style
