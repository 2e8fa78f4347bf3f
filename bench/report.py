"""Results of a benchmark, in one form for the terminal, for `--json` and for docs/BENCHMARKS.md."""

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, assert_never

from rich.markup import escape
from rich.table import Table

from bench.machine import Machine


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A table; its cells are text already."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def rich(self) -> Table:
        """For the terminal."""
        table = Table(title=self.title, title_justify="left")
        for number, column in enumerate(self.columns):
            table.add_column(escape(column), justify="right" if number else "left", overflow="fold")
        for row in self.rows:
            table.add_row(*map(escape, row))
        return table

    def markdown(self) -> str:
        """For the document."""
        rule = ["---", *("---:" for _ in self.columns[1:])]
        lines = (self.columns, rule, *self.rows)
        return "\n".join([f"**{self.title}**", "", *(f"| {' | '.join(line)} |" for line in lines)])


@dataclass(frozen=True, kw_only=True)
class BenchVerdict:
    """A promise and what was measured of it."""

    claim: str
    measured: float
    must_be: Literal["at least", "at most"]
    limit: float

    @property
    def passed(self) -> bool:
        """True if the promise was kept."""
        match self.must_be:
            case "at least":
                return self.measured >= self.limit
            case "at most":
                return self.measured <= self.limit
            case _:
                assert_never(self.must_be)


@dataclass(frozen=True, kw_only=True)
class BenchReport:
    """One benchmark's outcome."""

    key: str
    """Names its section in the document."""
    title: str
    command: str
    """Command that repeats the measurement."""
    machine: Machine
    grids: Sequence[Grid]
    figures: Mapping[str, Any]
    """The same as numbers, for programs; seconds and bytes unless a name says otherwise."""
    verdicts: Sequence[BenchVerdict] = ()
    notes: Sequence[str] = field(default=())
    """Sentences a reader of the tables must know."""

    @property
    def passed(self) -> bool:
        """True if every promise was kept."""
        return all(verdict.passed for verdict in self.verdicts)

    def json(self) -> Mapping[str, Any]:
        """For `--json`."""
        return {
            "benchmark": self.key,
            "command": self.command,
            "machine": asdict(self.machine),
            "figures": self.figures,
            "verdicts": [{**asdict(verdict), "passed": verdict.passed} for verdict in self.verdicts],
            "notes": list(self.notes),
        }

    def markdown(self) -> str:
        """Return the section of the document, with its heading."""
        parts = [f"## {self.title}", f"    {self.command}", _sentence(self.machine), *self.notes]
        return "\n\n".join([*parts, *(grid.markdown() for grid in self.all_grids())])

    def all_grids(self) -> Iterator[Grid]:
        """Return the tables, and the verdicts as a last one."""
        yield from self.grids
        if self.verdicts:
            yield _verdict_grid(self.verdicts)


def median(values: Iterable[float]) -> float:
    """Return the median; for an even number the mean of the two middle values."""
    return float(statistics.median(values))


def spread(values: Sequence[float]) -> str:
    """Format the median with the smallest and the largest value."""
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def _verdict_grid(verdicts: Sequence[BenchVerdict]) -> Grid:
    return Grid(
        title="Promises",
        columns=("what", "measured", "must be", "kept"),
        rows=tuple(
            (
                verdict.claim,
                f"{verdict.measured:.2f}",
                f"{verdict.must_be} {verdict.limit:g}",
                "yes" if verdict.passed else "NO",
            )
            for verdict in verdicts
        ),
    )


def _sentence(machine: Machine) -> str:
    gpu = f"GPU: {', '.join(machine.gpus)}" if machine.gpus else "no CUDA GPU"
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    return (
        f"{machine.date}, {machine.cores} cores of {machine.cpu}, {machine.memory_gib:.0f} GiB, {gpu}; "
        f"{machine.system}; {versions}."
    )
