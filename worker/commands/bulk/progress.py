"""Progress of a long command on stderr: a bar on a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from worker.commands.console import cell, err, note

SECONDS_BETWEEN_LINES = 10.0


class ProgressView(Protocol):
    """The progress that is shown."""

    def __call__(self, text: str, share: float | None) -> None:
        """Show a text, and the share that is done where it is known."""
        ...

    def aside(self) -> AbstractContextManager[None]:
        """Remove a bar while the block prints something else."""
        ...


@contextmanager
def progress(*, as_json: bool) -> Iterator[ProgressView]:
    """Show how far the command is; as lines where it prints JSON, which may come too fast for a bar."""
    if as_json or not sys.stderr.isatty():
        yield _Lines()
        return
    columns = (BarColumn(bar_width=24), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=err(), transient=True) as bar:
        yield _Bar(bar)


class _Bar:
    def __init__(self, bar: Progress) -> None:
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


class _Lines:
    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic, self._next = monotonic, monotonic() + SECONDS_BETWEEN_LINES

    def __call__(self, text: str, share: float | None) -> None:
        if self._monotonic() >= self._next:
            self._next = self._monotonic() + SECONDS_BETWEEN_LINES
            note(text if share is None else f"{text} ({share:.0%})")

    @staticmethod
    def aside() -> AbstractContextManager[None]:
        return nullcontext()
