"""The state bucket's layout, and its objects as models with generations."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

import structlog
from pydantic import BaseModel, ValidationError

from worker.errors import ObjectNotFound
from worker.ports import ObjectFacts, ObjectRef, ObjectStore

ModelT = TypeVar("ModelT", bound=BaseModel)

ABSENT = 0
"""The generation of an object that does not exist."""

_CLAIMS = "claims/"

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Stored(Generic[ModelT]):
    """The object of a name. `content` is None where there is no object, or none that can be read."""

    content: ModelT | None
    generation: int
    created_at: datetime | None = None
    """The bucket's own stamp of this generation; None where there is no object."""


@dataclass(frozen=True, kw_only=True)
class StateFiles:
    """Reads and writes JSON objects of the state bucket; every method may raise `StorageServiceError`.

    `claim_store` is another door to the same objects, for claims alone: their heartbeats must not queue behind
    checkpoints. None: `store` serves for claims as well.
    """

    store: ObjectStore
    bucket: str
    claim_store: ObjectStore | None = None

    def claim(self, job_id: str) -> ObjectRef:
        """Return the address of the job's claim."""
        return ObjectRef(self.bucket, f"{_CLAIMS}{job_id}.json")

    def stamp(self, owner: str) -> ObjectRef:
        """Return the address of an object that a worker writes to learn the bucket's time, and deletes at once."""
        return ObjectRef(self.bucket, f"stamps/{owner}.json")

    def result(self, job_id: str) -> ObjectRef:
        """Return the address of the job's result marker."""
        return ObjectRef(self.bucket, f"results/{job_id}.json")

    def checkpoint(self, job_id: str, key: str, index: int) -> ObjectRef:
        """Return the address of the checkpoint of one chunk."""
        return ObjectRef(self.bucket, f"checkpoints/{job_id}/{key}/{index:05d}.json")

    async def checkpoints(self, job_id: str) -> Sequence[ObjectFacts]:
        """Return every checkpoint of the job, of all keys."""
        return await self.store.list(self.bucket, f"checkpoints/{job_id}/")

    async def load(self, ref: ObjectRef, model: type[ModelT]) -> Stored[ModelT]:
        """Read an object; one that is not such a model is logged and has no content."""
        try:
            data, facts = await self._door(ref).read(ref)
        except ObjectNotFound:
            return Stored(content=None, generation=ABSENT)
        try:
            content: ModelT | None = model.model_validate_json(data)
        except ValidationError as exc:
            log.warning("state.unreadable", uri=ref.uri, model=model.__name__, problems=exc.error_count())
            content = None
        return Stored(content=content, generation=facts.generation, created_at=facts.created_at)

    async def save(self, ref: ObjectRef, content: BaseModel, if_generation: int | None) -> ObjectFacts:
        """Write an object and return the facts of its new generation. Raises `PreconditionFailed`."""
        data = content.model_dump_json().encode()
        return await self._door(ref).write(ref, data, content_type="application/json", if_generation=if_generation)

    async def delete(self, ref: ObjectRef, *, if_generation: int | None = None) -> None:
        """Remove an object; one that is already gone is fine. Raises `PreconditionFailed`."""
        await self._door(ref).delete(ref, if_generation=if_generation)

    def _door(self, ref: ObjectRef) -> ObjectStore:
        return self.claim_store if self.claim_store and ref.name.startswith(_CLAIMS) else self.store
