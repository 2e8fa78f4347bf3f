"""Rows of a CSV or JSON-lines file, or objects of a bucket, as jobs: memory does not grow with their number."""

import asyncio
import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TextIO, TypeAlias

from schemas.ids import job_identity, request_fingerprint
from schemas.job import MAX_JOB_BYTES, JobRejected, TranscriptionJob, parse_job
from schemas.uris import GcsUri
from schemas.wire import load_object, shorten
from worker.adapters.gcs import open_object_store
from worker.client import attributes_of
from worker.commands.job_fields import SCHEME, fit_for_an_id, video_id_of
from worker.ports import ObjectFacts

CSV_ENDINGS = {".csv", ".tsv"}
JSON_ENDINGS = {".jsonl", ".ndjson"}
SEPARATORS = ",;\t|"
LIST_SEPARATOR = ";"
NEEDED = "audio_uri"
LISTS = frozenset({"outputs", "keyterms"})
VALUES = frozenset({"schema_version", "audio_generation", "duration_seconds", "metadata", "transcription_config"})
"""Columns whose cells are JSON; all others but LISTS are text."""
FLAGS = frozenset({"TRUE", "FALSE", "True", "False"})
"""As spreadsheets write them."""
MOST_NAMES = 12
ID_CHARACTERS, DIGEST_CHARACTERS = 100, 12
PLACEHOLDER = "id"
"""Replaced by the id that is derived from the parsed job."""
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
"""Byte order marks of the encoding that spreadsheets call Unicode text."""
VideoIdFrom: TypeAlias = Literal["name", "folder", "path"]
"""The part of an object's name that becomes the video id."""
NO_AUDIO = re.compile(
    r"\.(csv|html|jpe?g|jsonl?|log|m3u8|md|ndjson|nemo|parquet|pdf|png|srt|tar|tsv|txt|vtt|webp|xml|ya?ml|zip)"
)
"""Endings of files that are found beside audio; the content decides for everything else."""


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


@dataclass(frozen=True, kw_only=True, slots=True)
class BulkJob:
    """A job ready to be published."""

    number: int
    name: str
    job_id: str
    video_id: str
    request: str
    """The request's fingerprint: two jobs of one id must not differ in it."""
    identity: str
    """The job's identity in its events."""
    data: bytes
    attributes: Mapping[str, str]
    ignored: frozenset[str]
    """Names of fields that the worker ignores."""
    names_its_video: bool
    """The row has a video_id; otherwise it is derived from the name of the audio."""


def job_of(row: Row, defaults: Mapping[str, Any]) -> "BulkJob | BadRow":
    """Return the row's job; `defaults` are fields for rows that lack them.

    A row without a `job_id` has one that depends on its request alone, so that the same row is the same job whenever
    and from wherever it is submitted.
    """
    fields = {**defaults, **{name: value for name, value in row.fields.items() if value is not None}}
    audio_uri = fields.get("audio_uri")
    if isinstance(audio_uri, str):
        fields.setdefault("video_id", row.video_id or video_id_of(audio_uri))
        fields.setdefault("metadata", {"audio_uri": audio_uri})
    else:
        fields.setdefault("video_id", PLACEHOLDER)
    try:
        job, ignored = parse_job(json.dumps({"job_id": PLACEHOLDER, **fields}).encode())
    except JobRejected as exc:
        return BadRow(number=row.number, faults=exc.violations, name=row.name)
    request = request_fingerprint(job)
    job_id = str(fields.get("job_id") or f"{job.video_id[:ID_CHARACTERS]}-{request[:DIGEST_CHARACTERS]}")
    fields["job_id"] = job_id
    return BulkJob(
        number=row.number,
        name=row.name,
        job_id=job_id,
        video_id=job.video_id,
        request=request,
        identity=job_identity(job.model_copy(update={"job_id": job_id})),
        data=json.dumps(fields).encode(),
        attributes=attributes_of(job),
        ignored=ignored,
        names_its_video=row.fields.get("video_id") is not None,
    )


# rows of a file


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
    with path.open("rb") as file:  # once: a pipe cannot be read twice
        beginning = file.peek()[: len(UTF16_MARKS[0])]
        if not beginning:
            raise FileUnusable("is empty")
        encoding, errors = ("utf-16", "replace") if beginning in UTF16_MARKS else ("utf-8-sig", "surrogateescape")
        lines = _Lines(io.TextIOWrapper(file, encoding, errors, newline=""))
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
    rows = csv.reader(lines, delimiter=separator, strict=True)
    while True:
        number, lines.is_cut = lines.number + 1, False
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as exc:
            upto = f"; nothing was read up to row {lines.number}" if lines.number > number else ""
            rather = "" if "limit" in str(exc) else "; write a quote inside quotes twice"
            yield BadRow(number=number, faults=(f"quotes: {exc}{upto}{rather}",))
            continue
        if not any(cell.strip() for cell in cells):
            continue
        if faults := _faults(cells, names, lines):
            yield BadRow(number=number, faults=faults)
            continue
        texts = {name: text.strip() for name, text in zip(names, cells, strict=True) if name and text.strip()}
        yield Row(number=number, fields=_nested({name: _read(name, text) for name, text in texts.items()}))


def _names(header: str, separator: str) -> Sequence[str]:
    try:
        return [name.strip() for name in next(csv.reader([header], delimiter=separator), [])]
    except csv.Error:  # one name of more characters than any cell may have
        return [header]


def _check_header(names: Sequence[str]) -> None:
    if any(name.startswith("gs://") for name in names):
        raise FileUnusable(f"row 1 is a job; it must name the columns, for example: video_id,{NEEDED}")
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise FileUnusable(f"row 1 names a column twice: {', '.join(twice)}")
    if NEEDED not in names:
        lower = {name.lower(): name for name in names}
        near = get_close_matches(NEEDED, lower, n=1)
        rather = f"; rename {lower[near[0]]} to {NEEDED}" if near else ""
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


def _read(column: str, text: str) -> Any:
    """Return the value of a cell; a text that is no value of this column stays text, to be refused."""
    if column in LISTS and not text.startswith("["):
        return [part.strip() for part in text.split(LIST_SEPARATOR)]
    field, _, inner = column.partition(".")
    is_flag = field == "transcription_config" and inner not in {"", "method"}
    return _as_json(text) if is_flag or column in VALUES | LISTS else text


def _as_json(text: str) -> Any:
    try:
        value = json.loads(text.lower() if text in FLAGS else text)
    except (ValueError, RecursionError):
        return text
    return text if isinstance(value, float) and not math.isfinite(value) else value


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


# objects of a bucket


@dataclass(kw_only=True)
class BucketRows:
    """Rows of the audio that a pattern matches, with what was left out.

    In a pattern `*` matches within a folder and `**` across folders; a trailing `/` means everything below.
    """

    pattern: str
    video_id_from: VideoIdFrom
    project: str
    skipped: Counter[str] = field(default_factory=Counter)
    """Number of objects by ending that are no audio."""
    seen: int = 0

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows. Raises `WorkerError` where the bucket cannot be listed."""
        bucket, _, rest = self.pattern.removeprefix(SCHEME).partition("/")
        fits, prefix = matcher(rest), rest.split("*")[0]
        for facts in _objects(self.project, bucket, prefix):
            name = facts.ref.name
            if name.endswith("/") or not fits.fullmatch(name):
                continue
            self.seen += 1
            ending = PurePosixPath(name).suffix.lower()
            if NO_AUDIO.fullmatch(ending):
                self.skipped[ending] += 1
                continue
            below = name.removeprefix(prefix[: prefix.rfind("/") + 1])
            uri, video_id = facts.ref.uri, _video_id(below, self.video_id_from)
            yield Row(number=self.seen, fields={"audio_uri": uri}, video_id=video_id, name=uri)


def matcher(pattern: str) -> re.Pattern[str]:
    """Return the pattern of object names as a regular expression."""
    whole = f"{pattern}**" if pattern.endswith("/") or not pattern else pattern
    parts = re.split(r"(\*+)", whole)
    return re.compile(
        "".join({"": "", "*": "[^/]*"}.get(p, ".*") if p.strip("*") == "" else re.escape(p) for p in parts)
    )


def is_valid_bucket(pattern: str) -> bool:
    """Return True where the address names a bucket before its first wildcard."""
    bucket, slash, _ = pattern.removeprefix(SCHEME).partition("/")
    try:
        GcsUri.parse_prefix(f"{SCHEME}{bucket}/")
    except ValueError:
        return False
    return bool(slash)


def _video_id(below: str, source: VideoIdFrom) -> str:
    path = PurePosixPath(below)
    match source:
        case "name":
            return fit_for_an_id(path.stem)
        case "folder":
            return fit_for_an_id(path.parent.name or path.stem)
        case "path":
            return fit_for_an_id(str(path.with_suffix("")).replace("/", "-"))


def _objects(project: str, bucket: str, prefix: str) -> Iterator[ObjectFacts]:
    """Yield the objects; the bucket is listed while the caller takes its time."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def opened() -> AsyncIterator[Sequence[ObjectFacts]]:
            return (await stack.enter_async_context(open_object_store(project=project))).pages(bucket, prefix)

        async def following(pages: AsyncIterator[Sequence[ObjectFacts]]) -> Sequence[ObjectFacts] | None:
            return await anext(pages, None)

        try:
            pages = runner.run(opened())
            while (page := runner.run(following(pages))) is not None:
                yield from page
        finally:
            runner.run(stack.aclose())
