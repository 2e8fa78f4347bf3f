"""Output of a benchmark's report: terminal, JSON, and its section of the document."""

import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from bench.document import write_section
from bench.report import BenchReport
from worker.commands.console import EXIT_FAILED, out
from worker.telemetry import configure_logging


def deliver(report: BenchReport, *, as_json: bool, write: Path | None) -> None:
    """Print the report and write its section. Exit 1 unless every promise was kept."""
    if as_json:
        print(json.dumps(report.json()))
    else:
        for note in report.notes:
            out().print(escape(note))
        for grid in report.all_grids():
            out().print(grid.rich())
    if write:
        write_section(write, report.key, report.markdown())
    if not report.passed:
        raise SystemExit(EXIT_FAILED)


def telling() -> AbstractContextManager[Callable[[str], None]]:
    """Show a line on stderr that names the current measurement, if stderr is a terminal, and send our log there."""
    configure_logging()
    return _Telling()


class _Telling:
    def __init__(self) -> None:
        self._status = Console(stderr=True, quiet=not sys.stderr.isatty()).status("starting")

    def __enter__(self) -> Callable[[str], None]:
        self._status.start()
        return self._status.update

    def __exit__(self, *_: object) -> None:
        self._status.stop()
