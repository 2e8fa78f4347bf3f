"""From a job's `audio_uri` to a verified file on this machine, gone again when the job ends.

Audio may be compressed for the way: `gsutil cp -Z` stores gzip data and says so, others upload a `.gz`. Cloud Storage
unpacks the former for readers that ask for it; the worker does not ask, since only the bytes as they are stored have a
checksum. So it unpacks both itself, which no audio format can be mistaken for.
"""

import asyncio
import gzip
import hashlib
import math
import shutil
import tempfile
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import structlog

from schemas.job import TranscriptionJob
from worker.core.tasks import together
from worker.errors import (
    AudioForbidden,
    AudioNotFound,
    AudioReplaced,
    AudioTooLarge,
    AudioUndecodable,
    NoRoomForAudio,
    ObjectForbidden,
    ObjectNotFound,
    TempDirFull,
)
from worker.ports import ObjectFacts, ObjectRef, ObjectStore
from worker.telemetry.spans import stage

log = structlog.get_logger(__name__)

LOOKS = 2
"""At an object that is replaced while it is fetched; one that is replaced faster than that is tried again later."""

MOST_LAYERS = 2
"""A `.gz` that was compressed once more for the way."""

_MAGIC = b"\x1f\x8b\x08"
_BLOCK_BYTES = 4 << 20


@dataclass(frozen=True, kw_only=True)
class AudioInput:
    """The downloaded audio, and `facts` of the object it is."""

    facts: ObjectFacts
    path: Path
    sha256: Awaitable[str]
    """In hexadecimal; summed while the audio is transcribed, since only the artefacts need it."""


class AudioIntake:
    """Downloads audio into folders of its own below `folder`; reads `input_buckets` only, where that is not empty.

    All audio at once takes at most `room_bytes`, but for one file that is larger by itself. `on_read` receives the name
    of each bucket that has been read.
    """

    def __init__(
        self,
        store: ObjectStore,
        folder: Path,
        *,
        input_buckets: frozenset[str],
        max_bytes: int,
        room_bytes: float = math.inf,
        on_read: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._store, self._folder = store, folder
        self._input_buckets, self._max_bytes = input_buckets, max_bytes
        self._on_read = on_read
        self.room_bytes, self.taken_bytes = room_bytes, 0
        self._arriving_bytes = 0

    def check_bucket(self, job: TranscriptionJob) -> None:
        """Raise `AudioForbidden` if the settings do not allow the job's bucket."""
        if self._input_buckets and job.audio.bucket not in self._input_buckets:
            raise AudioForbidden(job.audio_uri, f"INPUT_BUCKETS allows {', '.join(sorted(self._input_buckets))}")

    @asynccontextmanager
    async def fetch(self, job: TranscriptionJob) -> AsyncIterator[AudioInput]:
        """Provide the job's audio as a file inside the block.

        Raises `AudioTooLarge` (before the download, or while it is unpacked), `AudioUndecodable` for an empty object,
        `AudioReplaced`, `NoRoomForAudio`, `TempDirFull`; `ObjectNotFound`, `ObjectForbidden` and `StorageServiceError`,
        to be diagnosed.
        """
        with self._room() as room:
            folder = Path(tempfile.mkdtemp(prefix="job-", dir=self._folder))  # a cancelled thread would leave it
            try:
                with stage("download"):
                    facts = await self._download(job, folder / "audio", room)
                self._on_read(job.audio.bucket)
                path = await unpacked(folder / "audio", max_bytes=self._max_bytes, take_room=room.take)
                async with together() as group:
                    sha256 = group.create_task(asyncio.to_thread(_sha256, path), name="sha256")
                    yield AudioInput(facts=facts, path=path, sha256=sha256)
            finally:
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)  # 0.15 s for 200 MB

    async def _download(self, job: TranscriptionJob, path: Path, room: "_Room") -> ObjectFacts:
        """Look and download; look again where the object was replaced in between."""
        for _ in range(LOOKS):
            facts = await self._locate(job)
            room.take(facts.size_bytes)
            try:
                with self._arriving(facts.size_bytes), _if_the_bucket_works(job):
                    await self._store.download(facts, path)
            except ObjectNotFound:
                if job.audio_generation is not None:
                    raise
                log.info("audio.replaced", uri=job.audio_uri, generation=facts.generation)
                room.give_back(facts.size_bytes)
            else:
                log.info("audio.downloaded", uri=job.audio_uri, generation=facts.generation, bytes=facts.size_bytes)
                return facts
        raise AudioReplaced(job.audio_uri, LOOKS)

    @contextmanager
    def _arriving(self, size_bytes: int) -> Iterator[None]:
        """Raise `TempDirFull` before a download that cannot fit, so that it does not take the others' room first."""
        disk = shutil.disk_usage(self._folder)
        free_bytes = disk.free - self._arriving_bytes
        if size_bytes > free_bytes and disk.total:  # a file system that states no size states no free bytes either
            raise TempDirFull(str(self._folder.parent), size_bytes, max(free_bytes, 0))
        self._arriving_bytes += size_bytes
        try:
            yield
        finally:
            self._arriving_bytes -= size_bytes

    @contextmanager
    def _room(self) -> Iterator["_Room"]:
        room = _Room(self)
        try:
            yield room
        finally:
            room.give_back(room.taken_bytes)

    async def _locate(self, job: TranscriptionJob) -> ObjectFacts:
        with _if_the_bucket_works(job):
            facts = await self._store.stat(ObjectRef(job.audio.bucket, job.audio.name), job.audio_generation)
        if facts.size_bytes > self._max_bytes:
            raise AudioTooLarge(facts.size_bytes, self._max_bytes)
        if facts.size_bytes == 0:
            raise AudioUndecodable("the object is empty")
        return facts


@contextmanager
def _if_the_bucket_works(job: TranscriptionJob) -> Iterator[None]:
    """Say what a refusal means where the bucket is not at fault: the job's audio is missing or forbidden."""
    try:
        yield
    except ObjectNotFound as exc:
        exc.otherwise = AudioNotFound(job.audio_uri, job.audio_generation)
        raise
    except ObjectForbidden as exc:
        exc.otherwise = AudioForbidden(job.audio_uri, exc.reason or "the worker's service account may not read it")
        raise


class _Room:
    """One job's share of the room on this machine; what the first job takes always fits, or large files never would."""

    def __init__(self, intake: AudioIntake) -> None:
        self._intake = intake
        self.taken_bytes = 0

    def take(self, size_bytes: int) -> None:
        """Raise `NoRoomForAudio` where other jobs hold so much that this does not fit beside it."""
        free_bytes = self._intake.room_bytes - self._intake.taken_bytes
        if self._intake.taken_bytes > self.taken_bytes and size_bytes > free_bytes:
            raise NoRoomForAudio(size_bytes, free_bytes)
        self._intake.taken_bytes += size_bytes
        self.taken_bytes += size_bytes

    def give_back(self, size_bytes: int) -> None:
        """Free what was taken."""
        self._intake.taken_bytes -= size_bytes
        self.taken_bytes -= size_bytes


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def unpacked(path: Path, *, max_bytes: int, take_room: Callable[[int], None]) -> Path:
    """Return the file itself, or what it unpacks to; then the packed one is gone.

    `take_room` is called before each block is written and may refuse it. Raises `AudioTooLarge` as soon as more than
    `max_bytes` come out, `AudioUndecodable` for damaged data.
    """
    for layer in range(1, MOST_LAYERS + 1):
        if not await asyncio.to_thread(_is_gzip, path):
            break
        inner = path.with_name(f"audio-{layer}")
        size_bytes = await _unpack(path, inner, max_bytes, take_room)
        log.info("audio.unpacked", bytes=size_bytes)
        await asyncio.to_thread(path.unlink)
        path = inner
    return path


async def _unpack(packed: Path, inner: Path, max_bytes: int, take_room: Callable[[int], None]) -> int:
    count = 0
    with inner.open("xb") as file, gzip.open(packed) as source:
        while block := await asyncio.to_thread(_read, source):
            count += len(block)
            if count > max_bytes:
                raise AudioTooLarge(count, max_bytes, unpacked=True)
            take_room(len(block))
            await asyncio.to_thread(file.write, block)
    return count


def _read(source: gzip.GzipFile | BinaryIO) -> bytes:
    try:
        return source.read(_BLOCK_BYTES)
    except (EOFError, gzip.BadGzipFile, zlib.error) as exc:
        raise AudioUndecodable(f"it is gzip data, and damaged: {exc}") from exc


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC
