"""`accuracy`: word error rate and drift of files whose words are known, with the model that the settings name."""

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from worker.app.decoder import make_decoder
from worker.app.recogniser import make_engine
from worker.commands.console import EXIT_FAILED, EXIT_USAGE, cell, fail, line, load_settings, out
from worker.commands.local_files import transcribe_file
from worker.core.transcript.word_errors import TimedWord, WordErrors, drift_seconds, spoken_words, word_errors
from worker.errors import GpuNotAvailable, ModelLoadingError, WorkerError
from worker.settings import CloudSettings, EngineSettings, JobSettings
from worker.telemetry import configure_logging


@dataclass(frozen=True, kw_only=True, slots=True)
class ManifestEntry:
    """One line of a manifest."""

    audio: Path
    text: str
    words: tuple[TimedWord, ...]
    """Words with their starts, for the drift; empty where the manifest has none."""

    @property
    def format(self) -> str:
        """The file's suffix."""
        return self.audio.suffix.lstrip(".").lower() or "none"


@dataclass(frozen=True, kw_only=True, slots=True)
class FileScore:
    """The errors of one file's transcript."""

    entry: ManifestEntry
    audio_seconds: float
    written: WordErrors
    """Words with case and punctuation."""
    spoken: WordErrors
    """Words in lower case, without punctuation."""
    drift_seconds: float | None


def accuracy(manifest: Path, *, as_json: bool) -> None:
    """Transcribe every file of the manifest and print its score. Exit 1 where a file failed, 2 for a bad manifest."""
    settings = load_settings()
    configure_logging("json" if as_json else "auto")
    entries = read_manifest(manifest)
    try:
        scores = asyncio.run(_scores(settings.engine, settings.cloud, settings.jobs, entries, as_json=as_json))
    except (GpuNotAvailable, ModelLoadingError) as exc:
        fail(f"{exc}: {exc.suggested_action}")
    if as_json:
        for score in scores:
            print(json.dumps(_fields(score)), flush=True)
    elif scores:
        out().print(_table(scores))
    if len(scores) < len(entries):
        raise SystemExit(EXIT_FAILED)


def read_manifest(manifest: Path) -> list[ManifestEntry]:
    """Read NeMo's format: a JSON object a line, with `audio_filepath` (absolute, or beside the manifest) and `text`.

    `words`, a list of {"word", "start"} as in our transcripts, is ours. Ends the command where a line is none of that.
    """
    entries = []
    for number, text in enumerate(manifest.read_text(encoding="utf-8").splitlines(), start=1):
        if not text.strip():
            continue
        try:
            entries.append(_entry(json.loads(text), manifest.parent))
        except (ValueError, KeyError, TypeError) as exc:
            fail(f"{manifest}:{number}: {exc!r}; a line is an object with audio_filepath and text", EXIT_USAGE)
    if not entries:
        fail(f"{manifest} has no lines", EXIT_USAGE)
    return entries


def _entry(row: Mapping[str, Any], folder: Path) -> ManifestEntry:
    if row.get("offset"):
        raise ValueError("offset: files are transcribed whole; cut this one out first")
    words = tuple(TimedWord(str(word["word"]), float(word["start"])) for word in row.get("words") or ())
    return ManifestEntry(audio=folder / str(row["audio_filepath"]), text=str(row["text"]), words=words)


async def _scores(
    settings: EngineSettings,
    cloud: CloudSettings,
    jobs: JobSettings,
    entries: Sequence[ManifestEntry],
    *,
    as_json: bool,
) -> list[FileScore]:
    decoder, scores = make_decoder(jobs, settings), []
    async with make_engine(settings, cloud) as engine:
        for entry in entries:
            try:
                done = await transcribe_file(jobs, decoder, engine, entry.audio, lambda **_: None)
            except (WorkerError, OSError) as exc:
                if as_json:
                    print(json.dumps({"file": str(entry.audio), "error": str(exc)}), flush=True)
                else:
                    out().print(line(("failed", "red"), f" {entry.audio}: {exc}"))
                continue
            words = [TimedWord(word.text, word.start_seconds) for word in done.words]
            text = " ".join(word.text for word in words)
            scores.append(
                FileScore(
                    entry=entry,
                    audio_seconds=done.duration_seconds,
                    written=word_errors(entry.text.split(), text.split()),
                    spoken=word_errors(spoken_words(entry.text), spoken_words(text)),
                    drift_seconds=drift_seconds(entry.words, words),
                )
            )
    return scores


def _fields(score: FileScore) -> dict[str, object]:
    return {
        "file": str(score.entry.audio),
        "format": score.entry.format,
        "audio_seconds": round(score.audio_seconds, 3),
        "words": score.spoken.words,
        "word_error_rate_percent": round(score.spoken.percent, 3),
        "written_word_error_rate_percent": round(score.written.percent, 3),
        "drift_seconds": None if score.drift_seconds is None else round(score.drift_seconds, 3),
    }


def _table(scores: Sequence[FileScore]) -> Table:
    table = Table("file", "format", "seconds", "words", "WER %", "as written %", "drift s", title="word error rate")
    for score in scores:
        _row(table, score.entry.audio.name, score.entry.format, [score])
    for name, group in _groups(scores):
        _row(table, name, group[0].entry.format if name != "all" else "", group)
    return table


def _groups(scores: Sequence[FileScore]) -> Iterator[tuple[str, list[FileScore]]]:
    formats = sorted({score.entry.format for score in scores})
    for one in formats if len(formats) > 1 else []:
        yield f"all {one}", [score for score in scores if score.entry.format == one]
    if len(scores) > 1:
        yield "all", list(scores)


def _row(table: Table, name: str, form: str, scores: Sequence[FileScore]) -> None:
    none = WordErrors(errors=0, words=0)
    spoken = sum((score.spoken for score in scores), none)
    written = sum((score.written for score in scores), none)
    drifts = [score.drift_seconds for score in scores if score.drift_seconds is not None]
    worst = f"{max(drifts, key=abs):+.3f}" if drifts else "-"
    seconds = sum(score.audio_seconds for score in scores)
    figures = (f"{seconds:.1f}", str(spoken.words), f"{spoken.percent:.2f}", f"{written.percent:.2f}", worst)
    table.add_row(cell(name), cell(form), *figures)
