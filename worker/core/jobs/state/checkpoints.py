"""Finished chunks of a job, so that the next worker does not do them again."""

import asyncio
import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Protocol, TypeAlias

import structlog

from schemas.state import Checkpoint, ClaimRecord, ResultMarker
from worker.core.jobs.state.files import ABSENT, StateFiles
from worker.core.tasks import not_awaited
from worker.errors import ClaimLost, PreconditionFailed, WorkerError
from worker.ports import ObjectFacts, ObjectRef

SettingValue: TypeAlias = str | int | float | bool | None

log = structlog.get_logger()


def checkpoint_key(*, audio: ObjectFacts, model_fingerprint: str, settings: Mapping[str, SettingValue]) -> str:
    """Name of everything a chunk's words depend on: two chunks of equal key and index are interchangeable."""
    parts = [audio.ref.uri, audio.generation, audio.crc32c, model_fingerprint, dict(settings)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


class Holder(Protocol):
    """Interface of the claim that owns the checkpoints."""

    lost: asyncio.Event

    @property
    def record(self) -> ClaimRecord:
        """The claim as last written."""
        ...

    @property
    def is_certain(self) -> bool:
        """No other worker can have taken the job over by now."""
        ...

    @property
    def is_first(self) -> bool:
        """True if the job was never claimed before, so that it has no checkpoints yet."""
        ...

    async def note_progress(self, *, is_last: bool = False) -> None:
        """Remember that this claim brought the job forward: at once, or with the next write where that `is_last`."""
        ...


class Checkpoints:
    """Checkpoints of one claimed job.

    They are listed once; only existing ones are read, since no other worker writes any while the claim is held. Each is
    under the key of all that its words depend on: those of other settings are not loaded, and count as `unused`.
    """

    def __init__(self, files: StateFiles, job_id: str, holder: Holder) -> None:
        self._files, self._job_id, self._holder = files, job_id, holder
        self._names: set[str] | None = None
        self._used: set[str] = set()
        self.unkept: list[Checkpoint] = []
        """Chunks that were transcribed, and lost because they could not be stored; without words."""
        self._listing = asyncio.Lock()

    async def load(self, key: str, index: int) -> Checkpoint | None:
        """Return the finished chunk, or None; content that is not a checkpoint of that chunk is logged and ignored."""
        ref = self._files.checkpoint(self._job_id, key, index)
        if ref.name not in await self._standing() or (found := await self._sound(ref, index)) is None:
            return None
        self._used.add(ref.name)
        return found

    async def save(self, key: str, checkpoint: Checkpoint, *, is_last: bool = False) -> None:
        """Keep a finished chunk; durable on return. One that is there already stays.

        `is_last`: the job's other chunks are finished, and a proof of the claim follows, which notes the progress too.
        Raises `ClaimLost` when the job is no longer ours, `StorageServiceError`.
        """
        if self._holder.lost.is_set():
            self.unkept.append(checkpoint.without_windows())
            raise ClaimLost(self._job_id)
        ref = self._files.checkpoint(self._job_id, key, checkpoint.index)
        self._used.add(ref.name)
        if self._names is not None:
            self._names.add(ref.name)
        write = asyncio.create_task(self._write(ref, checkpoint), name=f"checkpoint-write:{ref.name}")
        try:
            is_new = await asyncio.shield(not_awaited(write))
        except WorkerError:
            self.unkept.append(checkpoint.without_windows())
            raise
        if is_new:
            await self._holder.note_progress(is_last=is_last)

    async def _write(self, ref: ObjectRef, checkpoint: Checkpoint) -> bool:
        """Write the checkpoint unless a sound one is there already; return whether it was written.

        Runs to its end although the caller is cancelled: a write that is in flight lands in any case.
        """
        try:
            written = await self._files.save(ref, checkpoint, if_generation=ABSENT)
        except PreconditionFailed:
            if await self._sound(ref, checkpoint.index):
                return False
            written = await self._files.save(ref, checkpoint, if_generation=None)
        if not self._holder.is_certain:
            await self._remove_if_completed(written)
        return True

    async def _remove_if_completed(self, written: ObjectFacts) -> None:
        """Remove a write that landed after another worker had completed the job, and so had cleared its checkpoints.

        A job that is not completed yet keeps it: the worker that completes it lists and clears them after that.
        """
        result = (await self._files.load(self._files.result(self._job_id), ResultMarker)).content
        if result is None or result.outcome != "completed" or result.run < self._holder.record.run:
            return
        log.info("checkpoint.too_late", uri=written.ref.uri)
        with suppress(PreconditionFailed):
            await self._files.delete(written.ref, if_generation=written.generation)

    async def all(self) -> tuple[Checkpoint, ...]:
        """Return every checkpoint of the job, of all keys, without words, by index. Raises `StorageServiceError`."""
        return await self._read(await self._standing())

    async def unused(self) -> tuple[Checkpoint, ...]:
        """Return those that were neither loaded nor saved, without words, by index. Raises `StorageServiceError`."""
        return await self._read(await self._standing() - self._used)

    async def _read(self, names: set[str]) -> tuple[Checkpoint, ...]:
        refs = [ObjectRef(self._files.bucket, name) for name in sorted(names)]
        found = await asyncio.gather(*(self._files.load(ref, Checkpoint) for ref in refs))
        chunks = [stored.content.without_windows() for stored in found if stored.content is not None]
        return tuple(sorted(chunks, key=lambda chunk: chunk.index))

    async def clear(self) -> None:
        """Remove every checkpoint of the job, of all keys. To be called after the result marker is written."""
        if not self._holder.is_first:
            await clear_checkpoints(self._files, self._job_id)
            return
        names = await self._standing()
        await asyncio.gather(*(self._files.delete(ObjectRef(self._files.bucket, name)) for name in names))

    async def _standing(self) -> set[str]:
        async with self._listing:
            if self._names is None:
                self._names = {facts.ref.name for facts in await self._files.checkpoints(self._job_id)}
            return self._names

    async def _sound(self, ref: ObjectRef, index: int) -> Checkpoint | None:
        found = (await self._files.load(ref, Checkpoint)).content
        if found is not None and found.index != index:
            log.warning("checkpoint.foreign", uri=ref.uri, index=found.index)
            return None
        return found


async def clear_checkpoints(files: StateFiles, job_id: str) -> None:
    """Remove every checkpoint of the job, of all keys. Raises `StorageServiceError`."""
    standing = await files.checkpoints(job_id)
    await asyncio.gather(*(files.delete(facts.ref) for facts in standing))
