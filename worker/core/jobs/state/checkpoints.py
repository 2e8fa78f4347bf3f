"""Finished chunks of a job, so that the next worker does not do them again."""

from collections.abc import Mapping
from typing import TypeAlias

from schemas.state import Checkpoint
from worker.ports import ObjectFacts

SettingValue: TypeAlias = str | int | float | bool | None


def checkpoint_key(*, audio: ObjectFacts, model_fingerprint: str, settings: Mapping[str, SettingValue]) -> str:
    """Name of everything a chunk's words depend on: two chunks of equal key and index are interchangeable."""
    raise NotImplementedError


class Checkpoints:
    """The checkpoints of one claimed job."""

    async def load(self, key: str, index: int) -> Checkpoint | None:
        """The finished chunk, or None; content that is not a checkpoint of that chunk is logged and ignored."""
        raise NotImplementedError

    async def save(self, key: str, checkpoint: Checkpoint) -> None:
        """Keep a finished chunk; durable on return. One that is there already stays.

        Raises `ClaimLost` when the job is no longer ours, `StorageServiceError`.
        """
        raise NotImplementedError

    async def clear(self) -> None:
        """Remove every checkpoint of the job, of all keys. For after the result marker stands."""
        raise NotImplementedError
