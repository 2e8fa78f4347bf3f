"""`transcribe`: local files to artefacts. Starts the inference process before it imports what the files need."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from schemas.codes import CaptionFormat
from schemas.job import Id
from worker.app.recogniser import make_engine, start_early
from worker.commands.console import EXIT_FAILED, EXIT_USAGE, fail, load_settings
from worker.telemetry import configure_logging


@dataclass(frozen=True, kw_only=True)
class PageOptions:
    """The place of the page's audio."""

    embeds_audio: bool = False


def transcribe(
    files: Sequence[Path],
    folder: Path,
    *,
    video_id: str | None,
    captions: Sequence[CaptionFormat],
    page: PageOptions | None = None,
    keyterms: tuple[str, ...] = (),
    as_json: bool,
) -> None:
    """Write each file's artefacts to `folder`. Exit 1 when a file failed; the others are done all the same."""
    settings = load_settings()
    configure_logging("json" if as_json else "auto")
    named = _named(files, video_id)
    folder.mkdir(parents=True, exist_ok=True)
    engine = make_engine(settings.engine, settings.cloud)
    start_early(engine)
    # These imports run while the inference process does its own.
    from worker.app.decoder import make_decoder  # noqa: PLC0415
    from worker.commands.local_files import Outputs, transcribe_all  # noqa: PLC0415

    decoder = make_decoder(settings.jobs, settings.engine)
    outputs, model_name = Outputs.of(folder, captions, page, keyterms), settings.engine.parakeet_model_name
    transcribing = transcribe_all(model_name, settings.jobs, decoder, engine, named, outputs, as_json=as_json)
    if asyncio.run(transcribing):
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
