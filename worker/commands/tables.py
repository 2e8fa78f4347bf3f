"""Tables that fit their terminal: the least important columns are left out first, then long values are shortened.

A terminal too narrow for what is left gets one card a row. Through a pipe nothing is left out or shortened, unless
COLUMNS sets a width.
"""

import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

from worker.commands.console import cell, out

GAP = "  "
UNBOUNDED = 100_000
BAR_CELLS = 10
NOTHING = "-"
EMPTY = frozenset({"", NOTHING})

Row: TypeAlias = Sequence[str | Text]
"""One value a column. Text is never markup, and its control characters are escaped."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """A column of a table. A column without any value is not shown."""

    name: str
    rank: int = 0
    """Columns of the highest rank are left out first; those of rank 0 never are."""
    least: int | None = None
    """Characters to which values may be shortened; None: they are always shown whole."""
    good: int = 0
    """Characters that the values get, if they are that long, before there is room for columns of a rank."""
    right: bool = False
    is_id: bool = False
    """Ids are shortened in their middle: their ends differ."""


@dataclass(frozen=True, kw_only=True)
class _Column:
    index: int
    field: Field
    natural: int
    least: int

    @property
    def good(self) -> int:
        """The width that matters more than columns of a rank."""
        return max(self.least, min(self.natural, self.field.good))


@dataclass(frozen=True, kw_only=True)
class FittedTable:
    """A table that fits the width at which it is printed; None among the rows is a rule."""

    fields: Sequence[Field]
    rows: Sequence[Row | None]
    title: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self.lines(options.max_width)

    def lines(self, width: int) -> Iterator[Text]:
        """Yield the lines, none of them wider than `width`."""
        rows = [None if row is None else [_text(value) for value in row] for row in self.rows]
        if self.title:
            yield from folded(cell(self.title, "italic"), width)
        columns = self._columns([row for row in rows if row is not None], width)
        if _taken([column.least for column in columns]) > width:
            yield from self._cards(rows, width)
            return
        widths = _widths(columns, width)
        rule = Text("─" * _taken(widths), "dim")
        yield _line([Text(column.field.name, "bold") for column in columns], columns, widths)
        yield rule
        for row in rows:
            yield rule if row is None else _line([row[column.index] for column in columns], columns, widths)

    def _columns(self, rows: Sequence[Sequence[Text]], width: int) -> list[_Column]:
        columns = []
        for index, field in enumerate(self.fields):
            values = [row[index].plain for row in rows]
            if not rows or any(value not in EMPTY for value in values):
                natural = max(map(cell_len, (field.name, *values)))
                least = natural if field.least is None else min(natural, max(field.least, cell_len(field.name)))
                columns.append(_Column(index=index, field=field, natural=natural, least=least))
        while _taken([column.good for column in columns]) > width and (
            highest := max(column.field.rank for column in columns)
        ):
            columns.remove(next(column for column in reversed(columns) if column.field.rank == highest))
        return columns

    def _cards(self, rows: Sequence[Sequence[Text] | None], width: int) -> Iterator[Text]:
        for row in rows:
            if row is None:
                continue
            facts = [(field.name, value) for field, value in zip(self.fields, row, strict=True)]
            yield from Card(facts=facts).lines(width)
            yield Text("─" * min(width, 8), "dim")


@dataclass(frozen=True, kw_only=True)
class Card:
    """Facts of one thing, a line each; long values are folded, and facts without a value are left out."""

    facts: Sequence[tuple[str, "str | Text | Command"]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self.lines(options.max_width)

    def lines(self, width: int) -> Iterator[Text]:
        """Yield the facts as lines of a name and a value, none of them wider than `width`."""
        facts = [
            (cell(name, "bold"), value if isinstance(value, Command) else _text(value)) for name, value in self.facts
        ]
        shown = [(name, value) for name, value in facts if value.plain not in EMPTY]
        indent = max((cell_len(name.plain) for name, _ in shown), default=0) + len(GAP)
        indent = min(indent, max(len(GAP), width // 2))
        for name, value in shown:
            head = Text(" " * indent)
            if cell_len(name.plain) + len(GAP) <= indent:
                head = Text.assemble(name, " " * (indent - cell_len(name.plain)))
            else:
                yield from folded(name, width)
            room = max(1, width - indent)
            for part in value.lines(room) if isinstance(value, Command) else folded(value, room):
                yield head + part
                head = Text(" " * indent)


@dataclass(frozen=True)
class Command:
    """A command to paste. Where it is too long for one line, a part of it alone might do something else, or to more."""

    words: tuple[str, ...]

    @property
    def plain(self) -> str:
        """The command in one line."""
        return shlex.join(self.words)

    def lines(self, width: int) -> Iterator[Text]:
        """Yield lines that end in a backslash, but for the last one; only a word that is too long makes one wider."""
        first, *others = map(shlex.quote, self.words)
        line = first
        for word in others:
            if cell_len(f"{line} {word} \\") > width:
                yield cell(f"{line} \\")
                line = word
            else:
                line = f"{line} {word}"
        yield cell(line)


def folded(text: Text, width: int) -> Iterator[Text]:
    """Yield the text in lines that fit, broken between words where there are any."""
    if cell_len(text.plain) <= width:
        yield text
        return
    for part in text.wrap(out(), width, overflow="fold"):
        part.rstrip()
        yield part


def print_fitted(*shown: RenderableType) -> None:
    """Print on stdout: at the terminal's width, or at the one each table needs where there is no terminal."""
    console = out()
    if not console.is_terminal and not os.environ.get("COLUMNS"):
        console.width = UNBOUNDED
    console.print(*shown, sep="\n", soft_wrap=False)


def bar(done: float, whole: float | None) -> Text:
    """Return the share that is done as a bar and in percent."""
    share = min(1.0, max(0.0, done / whole)) if whole else 0.0
    full = int(share * BAR_CELLS)
    return Text.assemble(("━" * full, "green"), ("─" * (BAR_CELLS - full), "dim"), f" {100 * share:3.0f} %")


def beside_deepgram(saved_percent: float) -> str:
    """Return a cost beside Deepgram's for the same audio: `98.1 % below Deepgram`."""
    return f"{abs(saved_percent):.1f} % {'above' if saved_percent < 0 else 'below'} Deepgram"


def age(seconds: float | timedelta | None) -> str:
    """Return an age in its largest unit: `40 s`, `12 min`, `5 h`, `3 d`."""
    if seconds is None:
        return NOTHING
    left = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if left >= 2 * length or (left >= length and unit == "min"):
            return f"{left / length:.0f} {unit}"
    return f"{max(0.0, left):.0f} s"


def _text(value: str | Text) -> Text:
    return value if isinstance(value, Text) else cell(value)


def _taken(widths: Sequence[int]) -> int:
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _widths(columns: Sequence[_Column], width: int) -> list[int]:
    """Share what is left among the columns that have been shortened, the narrowest first."""
    widths = [column.good for column in columns]
    if _taken(widths) > width:
        widths = [column.least for column in columns]
    spare = width - _taken(widths)
    short = sorted((column.natural - widths[place], place) for place, column in enumerate(columns))
    for number, (missing, place) in enumerate(short):
        more = min(missing, spare // (len(short) - number))
        widths[place] += more
        spare -= more
    return widths


def _shortened(value: Text, width: int, *, in_the_middle: bool) -> Text:
    part = value.copy()
    if in_the_middle and cell_len(value.plain) > width > len("a…z"):
        tail = value.plain[-(width // 2) :]
        while cell_len(tail) > width // 2:
            tail = tail[1:]
        part.truncate(width - cell_len(tail), overflow="ellipsis")
        return part.append(tail)
    part.truncate(width, overflow="ellipsis")
    return part


def _line(values: Sequence[Text], columns: Sequence[_Column], widths: Sequence[int]) -> Text:
    line = Text(no_wrap=True, overflow="ignore")
    for number, (value, column, width) in enumerate(zip(values, columns, widths, strict=True)):
        part = _shortened(value, width, in_the_middle=column.field.is_id)
        room = " " * (width - cell_len(part.plain))
        line.append(GAP if number else "")
        line.append_text(Text(room) + part if column.field.right else part + Text(room))
    line.rstrip()
    return line
