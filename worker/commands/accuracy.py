"""`accuracy`: word error rate and drift of files whose words are known, with the model that the settings name."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from schemas.decoding import violations
from schemas.job import Keyterms
from worker.app.decoder import make_decoder
from worker.app.recogniser import make_engine
from worker.commands.accuracy_figures import FileScore, ManifestEntry, fields, score, table
from worker.commands.console import EXIT_FAILED, EXIT_USAGE, fail, line, load_settings, out
from worker.commands.local_files import transcribe_file
from worker.commands.tables import print_fitted
from worker.commands.transcribe import Choices
from worker.core.transcript.word_errors import TimedWord
from worker.errors import WorkerError
from worker.settings import CloudSettings, EngineSettings, JobSettings
from worker.telemetry import configure_logging


def accuracy(manifest: Path, *, keyterms: tuple[str, ...] = (), as_json: bool) -> None:
    """Transcribe every file of the manifest and print its score. Exit 1 where a file failed, 2 for a bad manifest.

    `keyterms` are those of files whose line has none.
    """
    settings = load_settings()
    configure_logging("json", "off")
    entries = [replace(entry, keyterms=entry.keyterms or keyterms) for entry in read_manifest(manifest)]
    scores = asyncio.run(_scores(settings.engine, settings.cloud, settings.jobs, entries, as_json=as_json))
    if as_json:
        for one in scores:
            print(json.dumps(fields(one)), flush=True)
    elif scores:
        print_fitted(table(scores))
    if len(scores) < len(entries):
        raise SystemExit(EXIT_FAILED)


def read_manifest(manifest: Path) -> list[ManifestEntry]:
    """Read NeMo's format: a JSON object a line, with `audio_filepath` (absolute, or beside the manifest) and `text`.

    Ours are `words`, a list of {"word", "start"} as in our transcripts, `condition`, a text to group files by, and
    `keyterms`, as in a job. Ends the command where a line is none of that.
    """
    entries = []
    for number, text in enumerate(manifest.read_text(encoding="utf-8").splitlines(), start=1):
        if not text.strip():
            continue
        try:
            entries.append(_entry(json.loads(text), manifest.parent))
        except ValidationError as exc:
            faults = "; ".join(violations(exc)).removeprefix("message: ")
            fail(f"{manifest}:{number}: keyterms: {faults}", EXIT_USAGE)
        except KeyError as exc:
            fail(f"{manifest}:{number}: {exc.args[0]} is missing", EXIT_USAGE)
        except (ValueError, TypeError) as exc:
            fail(f"{manifest}:{number}: {exc}; a line is an object with audio_filepath and text", EXIT_USAGE)
    if not entries:
        fail(f"{manifest} has no lines", EXIT_USAGE)
    return entries


def _entry(row: Mapping[str, Any], folder: Path) -> ManifestEntry:
    if row.get("offset"):
        raise ValueError("offset: files are transcribed whole; cut this one out first")
    words = tuple(TimedWord(str(word["word"]), float(word["start"])) for word in row.get("words") or ())
    return ManifestEntry(
        audio=folder / str(row["audio_filepath"]),
        text=str(row["text"]),
        words=words,
        condition=str(row.get("condition") or ""),
        keyterms=TypeAdapter[tuple[str, ...]](Keyterms).validate_python(row.get("keyterms") or ()),
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
