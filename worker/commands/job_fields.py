"""Fields of jobs from the command line: the audio, ids by name, keyterms, and the files to write."""

import asyncio
import hashlib
import mimetypes
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias, TypeVar

from pydantic import TypeAdapter, ValidationError

from schemas.codes import Artefact, Channels
from schemas.job import Keyterm, Keyterms
from schemas.text import plain
from schemas.wire import violations
from worker.commands.console import EXIT_USAGE, fail, load_settings
from worker.commands.prerequisites import demand
from worker.settings import bucket_name

SCHEME = "gs://"
MOST_ID_CHARACTERS = 80
DIGEST_CHARACTERS = 12
UNFIT = re.compile(r"[^A-Za-z0-9._-]+")
ValueT = TypeVar("ValueT")
PageAudio: TypeAlias = Literal["beside", "inside"]


@dataclass(frozen=True, kw_only=True)
class Choices:
    """Options of the transcription, as jobs have them."""

    keyterms: tuple[str, ...] = ()
    channels: Channels = Channels.MIX


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """The folder of the artefacts, and the files to write besides the standard ones."""

    folder: Path
    captions: frozenset[Artefact] = frozenset()
    page: PageAudio | None = None
    """The place of the audio of a page to read; None: no page."""


def is_pattern(audio: str) -> bool:
    """Return True for an address of many objects."""
    return audio.startswith(SCHEME) and ("*" in audio or audio.endswith("/"))


def video_id_of(name: str) -> str:
    """Return the file's or object's name without its ending, as a video id."""
    return fit_for_an_id(PurePosixPath(name.replace("\\", "/")).stem)


def fit_for_an_id(text: str) -> str:
    """Return the text as a video id."""
    fit = UNFIT.sub("-", text).strip("-._")[:MOST_ID_CHARACTERS].strip("-._")
    return fit or "audio"


def job_id_of(video_id: str) -> str:
    """Return a new job id that begins as the video id does; it is valid even where the video id is not."""
    beginning = UNFIT.sub("-", video_id)[:MOST_ID_CHARACTERS].strip("-._") or "job"
    return f"{beginning}-{uuid.uuid4().hex[:8]}"


def located(audio: str, bucket: str | None, video_id: str) -> str:
    """Return the `gs://` address of the audio; a local file is uploaded to `bucket` first. Problems end the command."""
    if audio.startswith(SCHEME):
        return audio
    path = Path(audio)
    if not audio:
        fail("AUDIO is empty; name a file, or an object as gs://bucket/object", EXIT_USAGE)
    if path.is_dir():
        fail(f"{audio} is a directory; name an audio file", EXIT_USAGE)
    if not path.is_file():
        fail(f"{audio}: there is no such file; name a file, or an object as gs://bucket/object", EXIT_USAGE)
    if not bucket:
        fail("AUDIO_BUCKET is not set, and without it --bucket must say where the file is uploaded to", EXIT_USAGE)
    demand_bucket(bucket)
    cloud = load_settings().cloud
    demand(cloud, pubsub=True, storage=True)
    return asyncio.run(upload_file(path, cloud.project_id, bucket, video_id))


def demand_bucket(bucket: str) -> None:
    """End the command where that is no name of a bucket."""
    try:
        bucket_name(bucket)
    except ValueError as exc:
        fail(f"--bucket: {exc} (got {bucket!r})", EXIT_USAGE)


def sha256_of(file: Path) -> str:
    """Return the digest of the file's bytes, in hexadecimal. Raises `OSError`."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


async def upload_file(path: Path, project: str, bucket: str, video_id: str) -> str:
    """Upload the file under a name that holds its checksum, and return the address.

    Raises `StorageServiceError`, and `OSError` where the file cannot be read.
    """
    from worker.adapters.gcs import open_object_store  # noqa: PLC0415 - Google's client, for local files alone
    from worker.ports import ObjectRef  # noqa: PLC0415 - the same

    digest = (await asyncio.to_thread(sha256_of, path))[:DIGEST_CHARACTERS]
    ref = ObjectRef(bucket, f"{video_id}/{digest}{UNFIT.sub('', path.suffix)}")
    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    async with open_object_store(project=project) as store:
        await store.upload_file(path, ref, media_type)
    return ref.uri


# keyterms: `--keyterm` and `--keyterms-file`


def keyterms_text(keyterms_found: Sequence[str], keyterms_unspeakable: Sequence[str]) -> str:
    """Return the end of a line about a transcript: empty for one without keyterms."""
    found = f", keyterms found: {', '.join(keyterms_found)}" if keyterms_found else ""
    if not keyterms_unspeakable:
        return found
    return f"{found}, not in the model's vocabulary: {', '.join(keyterms_unspeakable)}"


def keyterms_of(terms: Sequence[str], file: Path | None) -> tuple[str, ...]:
    """Return the keyterms of both options, as a job has them; empty lines of the file are skipped.

    Ends the command where one is no keyterm, naming it, or where they are too many.
    """
    named = [("--keyterm", term) for term in terms]
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError:
            fail(f"{file}: must be UTF-8; save the file as UTF-8", EXIT_USAGE)
        named += [(f"{file}:{number}", line) for number, line in enumerate(lines, start=1) if line.strip()]
    one: TypeAdapter[str] = TypeAdapter(Keyterm)
    every: TypeAdapter[tuple[str, ...]] = TypeAdapter(Keyterms)
    for source, term in named:
        _valid(one, term, source)
    return _valid(every, [term for _, term in named], "keyterms")


def _valid(kind: TypeAdapter[ValueT], value: object, source: str) -> ValueT:
    try:
        return kind.validate_python(value)
    except ValidationError as exc:
        fail(f"{plain(source)}: {violations(exc)[0].removeprefix('message: ')}", EXIT_USAGE)
