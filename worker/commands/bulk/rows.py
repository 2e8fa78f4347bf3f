"""Rows of a CSV or JSON-lines file as fields of jobs, one after the other: memory does not grow with the file."""

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TextIO

from schemas.decoding import load_object, shorten
from schemas.job import MAX_JOB_BYTES, TranscriptionJob

CSV_ENDINGS = {".csv", ".tsv"}
JSON_ENDINGS = {".jsonl", ".ndjson"}
SEPARATORS = ",;\t|"
LIST_SEPARATOR = ";"
NEEDED = "audio_uri"
MOST_NAMES = 12
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
"""Byte order marks of the encoding that spreadsheets call Unicode text."""


class FileUnusable(ValueError):
    """No row of the file can be read; the text is the reason."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """Fields of a job as they are written, and the line of the file that they begin at."""

    number: int
    fields: Mapping[str, Any]
    video_id: str | None = None
    """The video id of a row that names none; None: it follows from the name of the audio."""
    name: str = ""
    """The audio, where a number says little."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BadRow:
    """A row that is no job, with everything that is wrong with it."""

    number: int
    faults: Sequence[str]
    name: str = ""


def rows_of(path: Path) -> "Iterator[Row | BadRow]":
    """Yield the rows of the file. Raises `FileUnusable` and `OSError`, at the first step or later."""
    try:
        yield from _rows_of(path)
    except FileUnusable as exc:
        raise FileUnusable(f"{path} {exc}") from exc


def _rows_of(path: Path) -> "Iterator[Row | BadRow]":
    ending = path.suffix.lower()
    if ending not in CSV_ENDINGS | JSON_ENDINGS:
        raise FileUnusable(f"must end in .csv or .jsonl, which says what is in it (got {ending or 'no ending'})")
    with path.open("rb") as file:
        beginning = file.read(len(UTF16_MARKS[0]))
    if not beginning:
        raise FileUnusable("is empty")
    encoding, errors = ("utf-16", "replace") if beginning in UTF16_MARKS else ("utf-8-sig", "surrogateescape")
    with path.open(encoding=encoding, errors=errors, newline="") as file:
        lines = _Lines(file)
        yield from _csv_rows(lines) if ending in CSV_ENDINGS else _json_rows(lines)


class _Lines:
    """Lines of a file, cut at the size of the largest job."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.number = 0
        self.is_cut = False
        """True if a line was cut since the caller reset it."""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._file.readline(MAX_JOB_BYTES)
        if not line:
            raise StopIteration
        self.number += 1
        rest = line
        while len(rest) == MAX_JOB_BYTES and not rest.endswith(("\n", "\r")):
            self.is_cut = True
            rest = self._file.readline(MAX_JOB_BYTES)
        return line


def _csv_rows(lines: _Lines) -> "Iterator[Row | BadRow]":
    header_line = next((line for line in lines if line.strip()), "")
    separator = max(
        SEPARATORS, key=lambda each: len(set(_names(header_line, each)) & set(TranscriptionJob.model_fields))
    )
    names = _names(header_line, separator)
    _check_header(names)
    schema = TranscriptionJob.model_json_schema()
    read = {name: _reader(name, schema) for name in names if name}
    rows = csv.reader(lines, delimiter=separator, strict=True)
    while True:
        number, lines.is_cut = lines.number + 1, False
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as exc:
            upto = f"; nothing was read up to row {lines.number}" if lines.number > number else ""
            yield BadRow(number=number, faults=(f"quotes: {exc}{upto}; write a quote inside quotes twice",))
            continue
        if not any(cell.strip() for cell in cells):
            continue
        if faults := _faults(cells, names, lines):
            yield BadRow(number=number, faults=faults)
            continue
        texts = {name: text.strip() for name, text in zip(names, cells, strict=True) if name and text.strip()}
        yield Row(number=number, fields=_nested({name: read[name](text) for name, text in texts.items()}))


def _names(header: str, separator: str) -> Sequence[str]:
    return [name.strip() for name in next(csv.reader([header], delimiter=separator), [])]


def _check_header(names: Sequence[str]) -> None:
    if any(name.startswith("gs://") for name in names):
        raise FileUnusable(f"row 1 is a job; it must name the columns, for example: video_id,{NEEDED}")
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise FileUnusable(f"row 1 names a column twice: {', '.join(twice)}")
    if NEEDED not in names:
        near = get_close_matches(NEEDED, names, n=1)
        rather = f"; rename {near[0]} to {NEEDED}" if near else ""
        found = ", ".join(shorten(name) for name in names[:MOST_NAMES])
        raise FileUnusable(f"row 1 names no column {NEEDED} but {found or 'nothing'}{rather}")


def _faults(cells: Sequence[str], names: Sequence[str], lines: _Lines) -> Sequence[str]:
    if lines.is_cut:
        return (f"message: must have at most {MAX_JOB_BYTES} bytes",)
    if len(cells) != len(names):
        return (f"cells: must be {len(names)} as in row 1 (got {len(cells)}); a cell with a separator needs quotes",)
    unread = [(name, text) for name, text in zip(names, cells, strict=True) if _is_undecoded(text)]
    return [f"{name}: must be UTF-8 (got {shorten(_as_latin(text))}); save the file as UTF-8" for name, text in unread]


def _json_rows(lines: _Lines) -> "Iterator[Row | BadRow]":
    for text in lines:
        number, is_cut, lines.is_cut = lines.number, lines.is_cut, False
        if not text.strip():
            continue
        if number == 1 and text.lstrip().startswith("["):
            raise FileUnusable("is one JSON list; write one object a line: jq -c '.[]' FILE")
        fault = f"must have at most {MAX_JOB_BYTES} bytes" if is_cut else ""
        if _is_undecoded(text):
            fault = fault or "must be UTF-8; save the file as UTF-8"
        fields: Mapping[str, Any] = {}
        try:
            fields = {} if fault else load_object(text.encode())
        except ValueError as exc:
            fault = str(exc)
        yield BadRow(number=number, faults=(f"message: {fault}",)) if fault else Row(number=number, fields=fields)


# cells


def _reader(name: str, schema: Mapping[str, Any]) -> Callable[[str], Any]:
    """Return the function that reads a cell of this column; a text that it cannot read stays text, to be refused."""
    kinds = _kinds(schema["properties"].get(name.partition(".")[0], {}), schema)
    if "." in name:
        return _as_json if "boolean" in _kinds_inside(name, schema) else str
    if "array" in kinds:
        return _as_list
    if kinds & {"object", "integer", "number"}:
        return _as_json
    return str


def _kinds(described: Mapping[str, Any], schema: Mapping[str, Any]) -> set[str]:
    """Return the JSON types that a field may have."""
    options = [described, *described.get("anyOf", ())]
    options += [schema["$defs"][each["$ref"].rpartition("/")[2]] for each in options if "$ref" in each]
    return {str(each["type"]) for each in options if "type" in each}


def _kinds_inside(name: str, schema: Mapping[str, Any]) -> set[str]:
    outer, _, inner = name.partition(".")
    reference = schema["properties"].get(outer, {}).get("$ref", "").rpartition("/")[2]
    return _kinds(schema["$defs"].get(reference, {}).get("properties", {}).get(inner, {}), schema)


def _as_json(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return text if isinstance(value, float) and not math.isfinite(value) else value


def _as_list(text: str) -> Any:
    return _as_json(text) if text.startswith("[") else [part.strip() for part in text.split(LIST_SEPARATOR)]


def _nested(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return `a.b` as b inside of a."""
    found: dict[str, Any] = {name: value for name, value in fields.items() if "." not in name}
    for name, value in fields.items():
        outer, dot, inner = name.partition(".")
        if dot and isinstance(found.setdefault(outer, {}), dict):
            found[outer] = {**found[outer], inner: value}
    return found


def _is_undecoded(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _as_latin(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("latin-1")
