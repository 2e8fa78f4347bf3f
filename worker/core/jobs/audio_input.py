"""From a job's `audio_uri` to a verified file on this machine, gone again when the job ends."""

import asyncio
import hashlib
import math
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from schemas.job import TranscriptionJob
from worker.core.jobs.tasks import together
from worker.core.jobs.unpacking import unpacked
from worker.errors import (
    AudioForbidden,
    AudioNotFound,
    AudioReplaced,
    AudioTooLarge,
    AudioUndecodable,
    NoRoomForAudio,
    ObjectForbidden,
    ObjectNotFound,
)
from worker.ports import ObjectFacts, ObjectRef, ObjectStore
from worker.telemetry.spans import stage

log = structlog.get_logger(__name__)

LOOKS = 2
"""At an object that is replaced while it is fetched; one that is replaced faster than that is tried again later."""


@dataclass(frozen=True, kw_only=True)
class AudioInput:
    """The downloaded audio, and `facts` of the object it is."""

    facts: ObjectFacts
    path: Path
    sha256: Awaitable[str]
    """In hexadecimal; summed while the audio is transcribed, since only the artefacts need it."""


class AudioIntake:
    """Downloads audio into folders of its own below `folder`; reads `input_buckets` only, where that is not empty.

    All audio at once takes at most `room_bytes`, but for one file that is larger by itself.
    """

    def __init__(
        self,
        store: ObjectStore,
        folder: Path,
        *,
        input_buckets: frozenset[str],
        max_bytes: int,
        room_bytes: float = math.inf,
    ) -> None:
        self._store, self._folder = store, folder
        self._input_buckets, self._max_bytes = input_buckets, max_bytes
        self.room_bytes, self.taken_bytes = room_bytes, 0

    def check_bucket(self, job: TranscriptionJob) -> None:
        """Raises `AudioForbidden` where the settings do not allow the job's bucket."""
        if self._input_buckets and job.audio.bucket not in self._input_buckets:
            raise AudioForbidden(job.audio_uri, f"INPUT_BUCKETS allows {', '.join(sorted(self._input_buckets))}")

    @asynccontextmanager
    async def fetch(self, job: TranscriptionJob) -> AsyncIterator[AudioInput]:
        """The job's audio as a file, for the length of the block.

        Raises `AudioNotFound`, `AudioForbidden`, `AudioTooLarge` (before the download, or while it is unpacked),
        `AudioUndecodable` for an empty object, `AudioReplaced`, `NoRoomForAudio`, `StorageServiceError`.
        """
        with self._room() as room:
            folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="job-", dir=self._folder))
            try:
                with stage("download"):
                    facts = await self._download(job, folder / "audio", room)
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
                await self._store.download(facts, path)
            except ObjectNotFound as exc:
                if job.audio_generation is not None:
                    raise AudioNotFound(job.audio_uri, job.audio_generation) from exc
                log.info("audio.replaced", uri=job.audio_uri, generation=facts.generation)
                room.give_back(facts.size_bytes)
            except ObjectForbidden as exc:
                raise AudioForbidden(job.audio_uri, _refusal(exc)) from exc
            else:
                log.info("audio.downloaded", uri=job.audio_uri, generation=facts.generation, bytes=facts.size_bytes)
                return facts
        raise AudioReplaced(job.audio_uri, LOOKS)

    @contextmanager
    def _room(self) -> Iterator["_Room"]:
        room = _Room(self)
        try:
            yield room
        finally:
            room.give_back(room.taken_bytes)

    async def _locate(self, job: TranscriptionJob) -> ObjectFacts:
        ref = ObjectRef(job.audio.bucket, job.audio.name)
        try:
            facts = await self._store.stat(ref, job.audio_generation)
        except ObjectNotFound as exc:
            raise AudioNotFound(job.audio_uri, job.audio_generation) from exc
        except ObjectForbidden as exc:
            raise AudioForbidden(job.audio_uri, _refusal(exc)) from exc
        if facts.size_bytes > self._max_bytes:
            raise AudioTooLarge(facts.size_bytes, self._max_bytes)
        if facts.size_bytes == 0:
            raise AudioUndecodable("the object is empty")
        return facts


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


def _refusal(error: ObjectForbidden) -> str:
    """Google's own reason, such as a key that may not be used; else the likeliest."""
    return error.reason or "the worker's service account may not read it"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
