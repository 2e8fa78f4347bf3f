"""`transcribe --output html`: one file with the transcript, its words clickable, and the audio beside it or inside."""

import base64
import json
import mimetypes
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote

from worker.adapters.web.health_document import segment_of
from worker.adapters.web.rendering import span, standalone
from worker.app.page.transcript import read_transcript
from worker.commands.keyterms import keyterms_text
from worker.commands.transcribe import PageOptions
from worker.core.jobs.reporting import KeytermFields
from worker.ports import EngineFacts


def write_page(
    transcript_file: Path,
    audio: Path,
    engines: Sequence[str],
    engine: EngineFacts,
    options: PageOptions,
    keyterms: KeytermFields,
) -> Path:
    """Write the page beside the transcript artefact and return its path. Raises `OSError`.

    `engines` are those of the chunks, in the order of the audio; `keyterms` say which were found.
    """
    folder = transcript_file.parent
    source = _embedded(audio) if options.embeds_audio else _relative(audio, folder)
    found = read_transcript(json.loads(transcript_file.read_bytes()), audio_src=source)
    if found is None:
        raise AssertionError("an artefact of ours has our shape")
    transcript = replace(found, segments=[segment_of(engine) for engine in engines])
    now = datetime.now(UTC)
    noun = "word" if transcript.words_count == 1 else "words"
    lede = (
        f"{transcript.words_count:,} {noun} in {span(transcript.duration_seconds)} of audio. "
        f"Transcribed on {now:%Y-%m-%d} at {now:%H:%M} UTC by {Path(engine.model_name).name} on {engine.device_name}"
        f"{keyterms_text(**keyterms)}."
    )
    page = standalone(transcript, title=audio.name, lede=lede, version=version("klipstream-worker"))
    path = transcript_file.with_suffix(".html")
    partial = path.with_suffix(".partial")
    partial.write_text(page, encoding="utf-8")
    return partial.replace(path)


def _relative(audio: Path, folder: Path) -> str:
    return quote(Path(os.path.relpath(audio.resolve(), folder.resolve())).as_posix())


def _embedded(audio: Path) -> str:
    media_type = mimetypes.guess_type(audio.name)[0] or "audio/mpeg"
    return f"data:{media_type};base64,{base64.b64encode(audio.read_bytes()).decode()}"
