"""Progress of a long command on stderr: a bar on a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from worker.commands.console import cell, err, note

SECONDS_BETWEEN_LINES = 10.0

Show: TypeAlias = Callable[[str, float | None], None]
"""Shows a text, and the share that is done where it is known."""


@contextmanager
def progress() -> Iterator[Show]:
    """Yield a function that shows how far the command is."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    columns = (BarColumn(bar_width=24), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=err(), transient=True) as bar:
        task = bar.add_task("", total=None)

        def show(text: str, share: float | None) -> None:
            bar.update(
                task, description=cell(text).markup, total=None if share is None else 1.0, completed=share or 0.0
            )

        yield show


class _Lines:
    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic, self._next = monotonic, monotonic() + SECONDS_BETWEEN_LINES

    def __call__(self, text: str, share: float | None) -> None:
        if self._monotonic() >= self._next:
            self._next = self._monotonic() + SECONDS_BETWEEN_LINES
            note(text if share is None else f"{text} ({share:.0%})")
