"""The object store's twin: buckets in memory, with generations, preconditions and checksums."""

import base64
import itertools
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import google_crc32c

from schemas.uris import GcsUri
from worker.errors import InvalidJob, ObjectNotFound, PreconditionFailed
from worker.ports import ObjectFacts, ObjectRef


class MemoryObjectStore:
    """`worker.ports.ObjectStore` in memory; every bucket exists, none is versioned."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._objects: dict[ObjectRef, tuple[bytes, ObjectFacts]] = {}
        self._generations = itertools.count(1)

    async def stat(self, ref: ObjectRef, generation: int | None = None) -> ObjectFacts:
        """Describe the live object, or that generation of it."""
        _, facts = self._live(ref, generation)
        return facts

    async def download(self, facts: ObjectFacts, destination: Path) -> None:
        """Write that generation to a new file."""
        data, _ = self._live(facts.ref, facts.generation)
        with destination.open("xb") as file:
            file.write(data)

    async def read(self, ref: ObjectRef) -> tuple[bytes, ObjectFacts]:
        """Return the live content and its facts."""
        return self._live(ref, None)

    async def write(
        self, ref: ObjectRef, data: bytes, *, content_type: str, if_generation: int | None = None
    ) -> ObjectFacts:
        """Replace the object; `content_type` is not kept."""
        del content_type
        _refuse_unsafe(ref)
        self._check(ref, if_generation)
        facts = ObjectFacts(
            ref=ref,
            generation=next(self._generations),
            size_bytes=len(data),
            crc32c=base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode(),
            created_at=self._now(),
        )
        self._objects[ref] = (data, facts)
        return facts

    async def delete(self, ref: ObjectRef, *, if_generation: int | None = None) -> None:
        """Remove the object; one that is already gone is fine."""
        _refuse_unsafe(ref)
        if ref in self._objects:
            self._check(ref, if_generation)
            del self._objects[ref]

    async def list(self, bucket: str, prefix: str) -> Sequence[ObjectFacts]:
        """Every live object whose name starts with `prefix`, by name."""
        facts = (facts for _, facts in self._objects.values())
        return sorted(
            (each for each in facts if each.ref.bucket == bucket and each.ref.name.startswith(prefix)),
            key=lambda each: each.ref.name,
        )

    async def granted(self, bucket: str, permissions: Sequence[str]) -> frozenset[str] | None:
        """Return None: memory has no IAM."""
        del bucket, permissions
        return None

    def _live(self, ref: ObjectRef, generation: int | None) -> tuple[bytes, ObjectFacts]:
        _refuse_unsafe(ref)
        data, facts = self._objects.get(ref, (b"", None))
        if facts is None or generation not in {None, facts.generation}:
            raise ObjectNotFound(ref.uri)
        return data, facts

    def _check(self, ref: ObjectRef, if_generation: int | None) -> None:
        _, facts = self._objects.get(ref, (b"", None))
        if if_generation not in {None, facts.generation if facts else 0}:
            raise PreconditionFailed(ref.uri, if_generation)


def _refuse_unsafe(ref: ObjectRef) -> None:
    try:
        GcsUri.parse(ref.uri)
    except ValueError as exc:
        raise InvalidJob((f"{ref.uri}: {exc}",)) from exc
