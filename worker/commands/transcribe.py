"""`transcribe`: local files to artefacts. Starts the inference process before it imports what the files need."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from schemas.codes import Artefact, CaptionFormat, Channels
from schemas.job import Id
from worker.app.recogniser import make_engine, start_early
from worker.commands.console import EXIT_FAILED, EXIT_USAGE, fail, load_settings, note
from worker.commands.own_files import refuse_foreign
from worker.errors import ModelLoadingError
from worker.telemetry import LogFormat, LogLevel, configure_logging


@dataclass(frozen=True, kw_only=True)
class PageOptions:
    """The place of the page's audio."""

    embeds_audio: bool = False


@dataclass(frozen=True, kw_only=True)
class Choices:
    """Options of the transcription, as jobs have them."""

    keyterms: tuple[str, ...] = ()
    channels: Channels = Channels.MIX


def transcribe(
    files: Sequence[Path],
    folder: Path,
    *,
    video_id: str | None,
    captions: Sequence[CaptionFormat],
    page: PageOptions | None = None,
    choices: Choices | None = None,
    as_json: bool,
    overwrites: bool = False,
    verbose: bool = False,
) -> None:
    """Print each file's text, and write its artefacts to `folder`.

    Exit 1 when a file failed; the others are done all the same. Files that are not of the same audio are replaced only
    if `overwrites`. Log lines, those of the inference process too, are shown only if `verbose`.
    """
    settings = load_settings()
    log_format: LogFormat = "json" if as_json else settings.telemetry.log_format
    log_level: LogLevel = settings.telemetry.log_level if verbose else "off"
    configure_logging(log_format, log_level)
    named = _named(files, video_id)
    if not overwrites:
        refuse_foreign(named, folder, (Artefact[wanted.name] for wanted in captions), has_page=page is not None)
    engine = make_engine(settings.engine, settings.cloud, log_format, log_level)
    folder.mkdir(parents=True, exist_ok=True)
    start_early(engine)
    # These imports run while the inference process does its own.
    from worker.app.decoder import make_decoder  # noqa: PLC0415
    from worker.commands.local_files import Outputs, Shown, transcribe_all  # noqa: PLC0415

    decoder = make_decoder(settings.jobs, settings.engine)
    outputs = Outputs.of(folder, captions, page, choices or Choices())
    model_name = settings.engine.parakeet_model_name
    shown = Shown(as_json=as_json, has_bars=not verbose)
    transcribing = transcribe_all(model_name, settings.jobs, decoder, engine, named, outputs, shown)
    try:
        failed = asyncio.run(transcribing)
    except ModelLoadingError:
        if not verbose:
            note("-v shows the log of the inference process")
        raise
    if failed:
        raise SystemExit(EXIT_FAILED)


def _named(files: Sequence[Path], video_id: str | None) -> dict[str, Path]:
    if video_id is not None and len(files) > 1:
        fail("--video-id names the artefacts of one file; leave it out for several", EXIT_USAGE)
    named = {video_id or _stem(file): file for file in files}
    if len(named) < len(files):
        fail("two files have the same name, and so would their artefacts", EXIT_USAGE)
    for name in named:
        try:
            TypeAdapter(Id).validate_python(name)
        except ValidationError as exc:
            fail(f"{name!r} cannot be a video id: {exc.errors()[0]['msg']}; give one by --video-id", EXIT_USAGE)
    return named


def _stem(file: Path) -> str:
    return Path(file.stem).stem if file.suffix.lower() == ".gz" else file.stem
