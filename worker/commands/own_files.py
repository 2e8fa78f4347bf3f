"""Files that `transcribe` will write, and whether those that exist already are its own."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from schemas.codes import Artefact
from schemas.ids import request_id
from worker.commands.console import fail

STANDARD = (Artefact.WORDS, Artefact.PARAGRAPHS, Artefact.TRANSCRIPT)


def refuse_foreign(named: Mapping[str, Path], folder: Path, captions: Iterable[Artefact], *, has_page: bool) -> None:
    """End the command where it would overwrite a file that is no earlier transcript of the same audio.

    `named` are the audio files by the video id of their artefacts.
    """
    kinds = (*STANDARD, *captions)
    for video_id, audio in named.items():
        transcript = folder / Artefact.TRANSCRIPT.file_name(video_id)
        planned = [folder / kind.file_name(video_id) for kind in kinds]
        planned += [transcript.with_suffix(".html")] if has_page else []
        there = [path for path in planned if path.exists()]
        if there and not _is_of(transcript, video_id, audio):
            fail(
                f"{there[0]} exists and is not a transcript of this audio: choose another folder (--out) or name "
                "(--video-id), or overwrite it (--force)"
            )


def sha256_of(file: Path) -> str:
    """Return the digest of the file's bytes, in hexadecimal. Raises `OSError`."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _is_of(transcript: Path, video_id: str, audio: Path) -> bool:
    try:
        metadata = json.loads(transcript.read_bytes())["metadata"]
        found = metadata["request_id"], metadata["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return found == (request_id(video_id), sha256_of(audio))
