"""`accuracy`: word error rate and drift of files whose words are known, with the model that the settings name.

Each figure is a column of its table and a field of its JSON, for a file and for groups of files. A new figure is one
more entry of `FIGURES`.
"""

import asyncio
import json
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from schemas.job import Keyterms
from schemas.speech import Word
from schemas.wire import load_object, violations
from worker.app.engines import make_decoder
from worker.app.recogniser import make_engine
from worker.commands.console import EXIT_FAILED, EXIT_USAGE, fail, line, load_settings, out
from worker.commands.job_fields import Choices
from worker.commands.local_files import transcribe_file
from worker.commands.prerequisites import demand_temp_dir
from worker.commands.tables import NOTHING, Field, FittedTable, print_fitted
from worker.core.transcript.spelling import compared_words
from worker.core.transcript.word_errors import (
    Judged,
    KeytermScore,
    TimedWord,
    WordErrors,
    calibration_error,
    drift_seconds,
    judged_words,
    keyterm_score,
    missing_runs,
    spoken_words,
    word_errors,
)
from worker.errors import WorkerError
from worker.settings import CloudSettings, EngineSettings, JobSettings
from worker.telemetry import configure_logging

_MOST_DECIMALS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class ManifestEntry:
    """One line of a manifest."""

    audio: Path
    text: str
    words: tuple[TimedWord, ...] = ()
    """Words with their starts, for the drift; empty where the manifest has none, as is the condition."""
    condition: str = ""
    """The recording's, such as clean or "noise 10 dB"."""
    keyterms: tuple[str, ...] = ()

    @property
    def format(self) -> str:
        """The file's suffix."""
        return self.audio.suffix.lstrip(".").lower() or "none"


@dataclass(frozen=True, kw_only=True, slots=True)
class FileScore:
    """One file's transcript beside its reference."""

    entry: ManifestEntry
    audio_seconds: float
    timed_words: Sequence[TimedWord]
    """The transcript's words with their starts."""
    written: WordErrors
    """Errors of words with case and punctuation."""
    spoken: WordErrors
    """Errors of words in lower case, without punctuation."""
    keyterms: KeytermScore
    judged: Sequence[Judged]
    """Confidence of each word, and whether it is right."""
    holes: Sequence[float] | None
    """Seconds of each run of missing words that is a hole; None where the manifest has no times."""


def accuracy(manifest: Path, *, keyterms: tuple[str, ...] = (), as_json: bool) -> None:
    """Transcribe every file of the manifest and print its score. Exit 1 where a file failed, 2 for a bad manifest.

    `keyterms` are those of files whose line has none.
    """
    settings = load_settings()
    configure_logging("json", "off")
    demand_temp_dir(settings.jobs)
    entries = [replace(entry, keyterms=entry.keyterms or keyterms) for entry in read_manifest(manifest)]
    scores = asyncio.run(_scores(settings.engine, settings.cloud, settings.jobs, entries, as_json=as_json))
    if as_json:
        for one in scores:
            print(json.dumps(fields(one)), flush=True)
    elif scores:
        print_fitted(table(scores))
    if len(scores) < len(entries):
        raise SystemExit(EXIT_FAILED)


class _ManifestWord(BaseModel):
    word: str
    start: FiniteFloat


class _ManifestLine(BaseModel):
    model_config = ConfigDict(coerce_numbers_to_str=True)

    audio_filepath: str
    text: str
    words: tuple[_ManifestWord, ...] | None = None
    condition: str | None = None
    keyterms: Keyterms | None = None
    offset: float | None = None


def read_manifest(manifest: Path) -> list[ManifestEntry]:
    """Read NeMo's format: a JSON object a line, with `audio_filepath` (absolute, or beside the manifest) and `text`.

    Ours are `words`, a list of {"word", "start"} as in our transcripts, `condition`, a text to group files by, and
    `keyterms`, as in a job. Ends the command where a line is none of that.
    """
    entries = []
    for number, data in enumerate(manifest.read_bytes().removeprefix(BOM_UTF8).splitlines(), start=1):
        try:
            entries += [_entry(data, manifest.parent)] if data.strip() else []
        except ValueError as exc:
            faults = "; ".join(violations(exc)) if isinstance(exc, ValidationError) else f"message: {exc}"
            fail(f"{manifest}:{number}: {faults}", EXIT_USAGE)
    if not entries:
        fail(f"{manifest} has no lines", EXIT_USAGE)
    return entries


def _entry(data: bytes, folder: Path) -> ManifestEntry:
    row = _ManifestLine.model_validate(load_object(data))
    if row.offset:
        raise ValueError("offset: files are transcribed whole; cut this one out first")
    return ManifestEntry(
        audio=folder / row.audio_filepath,
        text=row.text,
        words=tuple(TimedWord(each.word, each.start) for each in row.words or ()),
        condition=row.condition or "",
        keyterms=row.keyterms or (),
    )


async def _scores(
    settings: EngineSettings,
    cloud: CloudSettings,
    jobs: JobSettings,
    entries: Sequence[ManifestEntry],
    *,
    as_json: bool,
) -> list[FileScore]:
    decoder, scores = make_decoder(jobs, settings), []
    async with make_engine(settings, cloud, "json", "off") as engine:
        for entry in entries:
            try:
                done = await transcribe_file(
                    jobs, decoder, engine, entry.audio, lambda **_: None, Choices(keyterms=entry.keyterms)
                )
            except (WorkerError, OSError) as exc:
                if as_json:
                    print(json.dumps({"file": str(entry.audio), "error": str(exc)}), flush=True)
                else:
                    out().print(line(("failed", "red"), f" {entry.audio}: {exc}"))
                continue
            scores.append(score(entry, done.duration_seconds, done.words))
    return scores


# figures


def score(entry: ManifestEntry, audio_seconds: float, words: Sequence[Word]) -> FileScore:
    """Count the word errors of a transcript."""
    text = " ".join(word.text for word in words)
    timed_words = [TimedWord(word.text, word.start_seconds) for word in words]
    return FileScore(
        entry=entry,
        audio_seconds=audio_seconds,
        timed_words=timed_words,
        written=word_errors(entry.text.split(), text.split()),
        spoken=word_errors(spoken_words(entry.text), spoken_words(text)),
        keyterms=_keyterm_score(entry, text),
        judged=judged_words(words, entry.text),
        holes=missing_runs(entry.words, timed_words) if entry.words else None,
    )


def _keyterm_score(entry: ManifestEntry, text: str) -> KeytermScore:
    if not entry.keyterms:
        return KeytermScore()
    return keyterm_score(entry.keyterms, compared_words(entry.text), compared_words(text))


Scores = Sequence[FileScore]


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a group of files; a file by itself is a group of one.

    `of` returns None for a group that has no such figure. The table has no column that is None in every row.
    """

    field: str
    """Name in the JSON, with the unit."""
    title: str
    """Head of the column."""
    of: Callable[[Scores], float | int | None]
    style: str = "d"
    """Format of the column's numbers."""
    rank: int = 4
    """A narrow terminal leaves out the figures of the highest rank first."""


def _errors(each: Iterable[WordErrors]) -> WordErrors:
    return sum(each, WordErrors(errors=0, words=0))


def _keyterms(scores: Scores) -> KeytermScore:
    return sum((one.keyterms for one in scores), KeytermScore())


def _worst_drift(scores: Scores) -> float | None:
    drifts = [drift_seconds(one.entry.words, one.timed_words) for one in scores]
    return max((drift for drift in drifts if drift is not None), key=abs, default=None)


def _holes(scores: Scores) -> int | None:
    found = [len(one.holes) for one in scores if one.holes is not None]
    return sum(found) if found else None


def _longest_hole(scores: Scores) -> float | None:
    return max((seconds for one in scores for seconds in one.holes or ()), default=None)


def _invented(scores: Scores) -> float | None:
    if not any(one.entry.keyterms for one in scores):
        return None
    total = _keyterms(scores)
    return 100 * (total.written - total.matched) / max(1, sum(one.spoken.words for one in scores))


FIGURES = (
    Figure("audio_seconds", "seconds", lambda scores: sum(one.audio_seconds for one in scores), ".1f", rank=2),
    Figure("words", "words", lambda scores: sum(one.spoken.words for one in scores), rank=1),
    Figure(
        "word_error_rate_percent", "WER %", lambda scores: _errors(one.spoken for one in scores).percent, ".2f", rank=0
    ),
    Figure(
        "written_word_error_rate_percent",
        "as written %",
        lambda scores: _errors(one.written for one in scores).percent,
        ".2f",
        rank=1,
    ),
    Figure("drift_seconds", "drift s", _worst_drift, "+.3f", rank=3),
    Figure("holes", "holes", _holes, rank=1),
    Figure("longest_hole_seconds", "longest s", _longest_hole, ".1f", rank=3),
    Figure(
        "calibration_error",
        "sure off",
        lambda scores: calibration_error([word for one in scores for word in one.judged]),
        ".3f",
        rank=3,
    ),
    Figure("keyterm_recall_percent", "keyterms %", lambda scores: _keyterms(scores).recall_percent, ".2f", rank=1),
    Figure(
        "keyterm_precision_percent", "precision %", lambda scores: _keyterms(scores).precision_percent, ".2f", rank=2
    ),
    Figure("keyterms_invented_percent", "invented %", _invented, ".2f", rank=2),
)


def fields(one: FileScore) -> dict[str, object]:
    """Return a file's figures as the members of a JSON object."""
    names = {"file": str(one.entry.audio), "format": one.entry.format, "condition": one.entry.condition or None}
    return {**names, **{figure.field: _rounded(figure.of([one])) for figure in FIGURES}}


def _rounded(value: float | None) -> float | None:
    return round(value, _MOST_DECIMALS) if isinstance(value, float) else value


def table(scores: Scores) -> FittedTable:
    """Return a row for each file, and one for each group."""
    rows = [(one.entry.audio.name, one.entry.format, [one]) for one in scores]
    rows += [(name, "", group) for name, group in _groups(scores)]
    names = (Field(name="file", least=16, is_id=True), Field(name="format", rank=2, least=6))
    figures = [Field(name=figure.title, right=True, rank=figure.rank) for figure in FIGURES]
    values = [(name, form, *(_shown(figure, group) for figure in FIGURES)) for name, form, group in rows]
    return FittedTable(title="accuracy", fields=[*names, *figures], rows=values)


def _shown(figure: Figure, group: Scores) -> str:
    value = figure.of(group)
    return NOTHING if value is None else format(value, figure.style)


def _groups(scores: Scores) -> Iterator[tuple[str, list[FileScore]]]:
    """Yield the files of each format, then of each condition, then all; a group that is all files only once."""
    for kinds in ([one.entry.format for one in scores], [one.entry.condition or "no condition" for one in scores]):
        for kind in dict.fromkeys(kinds) if len(set(kinds)) > 1 else ():
            yield f"all {kind}", [one for one, its in zip(scores, kinds, strict=True) if its == kind]
    if len(scores) > 1:
        yield "all", list(scores)
