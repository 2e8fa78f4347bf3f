"""`transcribe`: local files to artefacts. Starts the inference process before it imports what the files need."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from schemas.codes import Artefact
from schemas.ids import request_id
from schemas.job import Id
from worker.app.recogniser import make_engine, start_early
from worker.commands.console import EXIT_FAILED, EXIT_USAGE, fail, load_settings, note
from worker.commands.job_fields import Choices, Outputs, sha256_of
from worker.commands.prerequisites import demand_temp_dir
from worker.errors import ModelLoadingError
from worker.telemetry import LogFormat, LogLevel, configure_logging

STANDARD = (Artefact.WORDS, Artefact.PARAGRAPHS, Artefact.TRANSCRIPT)


def transcribe(
    files: Sequence[Path],
    outputs: Outputs,
    choices: Choices,
    *,
    video_id: str | None,
    as_json: bool,
    overwrites: bool,
    verbose: bool,
) -> None:
    """Print each file's text, and write its artefacts.

    Exit 1 when a file failed; the others are done all the same. Files that are not of the same audio are replaced only
    if `overwrites`. Log lines, those of the inference process too, are shown only if `verbose`.
    """
    settings = load_settings()
    log_format: LogFormat = "json" if as_json else settings.telemetry.log_format
    log_level: LogLevel = settings.telemetry.log_level if verbose else "off"
    configure_logging(log_format, log_level)
    demand_temp_dir(settings.jobs)
    named = _named(files, video_id)
    if not overwrites:
        refuse_foreign(named, outputs)
    engine = make_engine(settings.engine, settings.cloud, log_format, log_level)
    outputs.folder.mkdir(parents=True, exist_ok=True)
    start_early(engine)
    # These imports run while the inference process does its own.
    from worker.app.engines import make_decoder  # noqa: PLC0415
    from worker.commands.local_files import Shown, transcribe_all  # noqa: PLC0415

    decoder = make_decoder(settings.jobs, settings.engine)
    model_name = settings.engine.parakeet_model_name
    shown = Shown(as_json=as_json, has_bars=not verbose)
    try:
        failed = asyncio.run(transcribe_all(model_name, settings.jobs, decoder, engine, named, choices, outputs, shown))
    except ModelLoadingError:
        if not verbose:
            note("-v shows the log of the inference process")
        raise
    if failed:
        raise SystemExit(EXIT_FAILED)


def _named(files: Sequence[Path], video_id: str | None) -> dict[str, Path]:
    if video_id is not None and len(files) > 1:
        fail("--video-id names the artefacts of one file; leave it out for several", EXIT_USAGE)
    named: dict[str, Path] = {}
    for file in files:
        stem = Path(file.stem).stem if file.suffix.lower() == ".gz" else file.stem
        name = stem if video_id is None else video_id
        if name in named:
            both = f"{named[name]} and {file}"
            fail(f"{both} would have artefacts of the same names: transcribe one alone, with --video-id", EXIT_USAGE)
        named[name] = file
    for name in named:
        try:
            TypeAdapter(Id).validate_python(name)
        except ValidationError as exc:
            reason = exc.errors()[0]["msg"].removeprefix("Value error, ")
            fail(f"{name!r} cannot be a video id: {reason}; give one by --video-id", EXIT_USAGE)
    return named


def refuse_foreign(named: Mapping[str, Path], outputs: Outputs) -> None:
    """End the command where it would overwrite a file that is no earlier transcript of the same audio.

    `named` are the audio files by the video id of their artefacts.
    """
    for video_id, audio in named.items():
        transcript = outputs.folder / Artefact.TRANSCRIPT.file_name(video_id)
        planned = [outputs.folder / kind.file_name(video_id) for kind in (*STANDARD, *outputs.captions)]
        planned += [transcript.with_suffix(".html")] if outputs.page else []
        there = [path for path in planned if path.exists()]
        if there and not _is_of(transcript, video_id, audio):
            fail(
                f"{there[0]} exists and is not a transcript of this audio: choose another folder (--out) or name "
                "(--video-id), or overwrite it (--force)"
            )


def _is_of(transcript: Path, video_id: str, audio: Path) -> bool:
    try:
        metadata = json.loads(transcript.read_bytes())["metadata"]
        found = metadata["request_id"], metadata["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return found == (request_id(video_id), sha256_of(audio))
