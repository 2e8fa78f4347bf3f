"""The state bucket's layout, and its objects as models with generations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog
from pydantic import BaseModel, ValidationError

from worker.errors import ObjectNotFound
from worker.ports import ObjectFacts, ObjectRef, ObjectStore

Model = TypeVar("Model", bound=BaseModel)

ABSENT = 0
"""The generation of an object that does not exist."""

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Stored(Generic[Model]):
    """What stands at a name. `content` is None where nothing does, or nothing that can be read."""

    content: Model | None
    generation: int


@dataclass(frozen=True, kw_only=True)
class StateFiles:
    """Reads and writes JSON objects of the state bucket; every method may raise `StorageServiceError`."""

    store: ObjectStore
    bucket: str

    def claim(self, job_id: str) -> ObjectRef:
        """Where the job's claim stands."""
        return ObjectRef(self.bucket, f"claims/{job_id}.json")

    def result(self, job_id: str) -> ObjectRef:
        """Where the job's result marker stands."""
        return ObjectRef(self.bucket, f"results/{job_id}.json")

    def checkpoint(self, job_id: str, key: str, index: int) -> ObjectRef:
        """Where the checkpoint of one chunk stands."""
        return ObjectRef(self.bucket, f"checkpoints/{job_id}/{key}/{index:05d}.json")

    async def checkpoints(self, job_id: str) -> Sequence[ObjectFacts]:
        """Every checkpoint of the job, of all keys."""
        return await self.store.list(self.bucket, f"checkpoints/{job_id}/")

    async def load(self, ref: ObjectRef, model: type[Model]) -> Stored[Model]:
        """Read an object; one that is not such a model is logged and has no content."""
        try:
            data, facts = await self.store.read(ref)
        except ObjectNotFound:
            return Stored(content=None, generation=ABSENT)
        try:
            return Stored(content=model.model_validate_json(data), generation=facts.generation)
        except ValidationError as exc:
            log.warning("state.unreadable", uri=ref.uri, model=model.__name__, problems=exc.error_count())
            return Stored(content=None, generation=facts.generation)

    async def save(self, ref: ObjectRef, content: BaseModel, if_generation: int | None) -> int:
        """Write an object and return its generation. Raises `PreconditionFailed`."""
        data = content.model_dump_json().encode()
        facts = await self.store.write(ref, data, content_type="application/json", if_generation=if_generation)
        return facts.generation
