"""Services that refuse and fail as a test says, by the client library's own errors."""

import errno
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import requests.exceptions
from google.api_core import exceptions as google_errors

from worker.adapters.gcs.store import translated
from worker.adapters.memory.pubsub import MemorySubscription, MemoryTopic
from worker.adapters.memory.store import MemoryObjectStore
from worker.errors import QueueNotFound, QueueServiceError, SubscriptionNotFound
from worker.ports import Delivery, ObjectFacts, ObjectRef, SubscriptionFacts

T = TypeVar("T")

STORAGE_FAULTS: dict[str, Callable[[], Exception]] = {
    "401": lambda: google_errors.Unauthorized("no credentials"),
    "403": lambda: google_errors.Forbidden("not granted"),
    "404": lambda: google_errors.NotFound("The specified bucket does not exist."),
    "429": lambda: google_errors.TooManyRequests("slow down"),
    "503": lambda: google_errors.ServiceUnavailable("backend error"),
    "timeout": lambda: requests.exceptions.ReadTimeout("read timed out"),
}
"""Return the GCS client's error after the adapter's retries."""


def make_storage_fault(name: str) -> Exception:
    """Return the client's error of that name."""
    return STORAGE_FAULTS[name]()


REFUSALS = ("401", "403", "404")


class FaultyStore(MemoryObjectStore):
    """A store whose buckets fail while `faults` names them; writes alone where `writes_only` holds the bucket.

    `disk` is raised by downloads: an error of this machine.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        super().__init__(now)
        self.faults: dict[str, str] = {}
        self.disk: OSError | MemoryError | None = None
        self.calls: list[tuple[str, str]] = []

    def impatient(self) -> "FaultyStore":
        return self

    async def stat(self, ref: ObjectRef, generation: int | None = None) -> ObjectFacts:
        with self._faults("describe", ref):
            return await super().stat(ref, generation)

    async def read(self, ref: ObjectRef) -> tuple[bytes, ObjectFacts]:
        with self._faults("read", ref):
            return await super().read(ref)

    async def list(self, bucket: str, prefix: str) -> Sequence[ObjectFacts]:
        with self._faults("list", ObjectRef(bucket, prefix)):
            return await super().list(bucket, prefix)

    async def download(self, facts: ObjectFacts, destination: Path) -> None:
        with self._faults("download", facts.ref):
            if self.disk is not None:
                raise self.disk
            await super().download(facts, destination)

    async def write(
        self, ref: ObjectRef, data: bytes, *, content_type: str, if_generation: int | None = None
    ) -> ObjectFacts:
        with self._faults("write", ref):
            return await super().write(ref, data, content_type=content_type, if_generation=if_generation)

    async def delete(self, ref: ObjectRef, *, if_generation: int | None = None) -> None:
        with self._faults("delete", ref):
            await super().delete(ref, if_generation=if_generation)

    @contextmanager
    def _faults(self, operation: str, ref: ObjectRef) -> Iterator[None]:
        self.calls.append((operation, ref.bucket))
        with translated(operation, ref, None):
            if (fault := self.faults.get(ref.bucket)) is not None:
                raise make_storage_fault(fault)
            yield


class FaultyTopic:
    """A topic that fails while `fault` is set."""

    def __init__(self, topic: MemoryTopic) -> None:
        self._topic = topic
        self.path = topic.path
        self.fault: str | None = None

    async def verify(self) -> None:
        await self._unless_faulty(self._topic.verify)

    async def publish(self, data: bytes, attributes: Mapping[str, str], ordering_key: str = "") -> str:
        return await self._unless_faulty(lambda: self._topic.publish(data, attributes, ordering_key))

    async def _unless_faulty(self, call: Callable[[], Awaitable[T]]) -> T:
        if self.fault == "404":
            raise QueueNotFound(self.path)
        if self.fault is not None:
            raise QueueServiceError("publish to", self.path, self.fault, refused=self.fault in REFUSALS)
        return await call()


class FaultySubscription:
    """A subscription whose pulls, extensions and acks fail while `fault` is set."""

    def __init__(self, subscription: MemorySubscription) -> None:
        self._subscription = subscription
        self.fault: str | None = None

    async def facts(self) -> SubscriptionFacts:
        return await self._subscription.facts()

    async def pull(self, max_messages: int) -> Sequence[Delivery]:
        return await self._unless_faulty(lambda: self._subscription.pull(max_messages))

    async def extend(self, ack_ids: Sequence[str], seconds: int) -> frozenset[str]:
        return await self._unless_faulty(lambda: self._subscription.extend(ack_ids, seconds))

    async def ack(self, ack_id: str) -> None:
        await self._unless_faulty(lambda: self._subscription.ack(ack_id))

    async def _unless_faulty(self, call: Callable[[], Awaitable[T]]) -> T:
        if self.fault == "404":
            raise SubscriptionNotFound("jobs-worker")
        if self.fault is not None:
            raise QueueServiceError("pull from", "jobs-worker", self.fault, refused=self.fault in REFUSALS)
        return await call()


def os_error(name: str) -> Any:
    """The error that the operating system gives by that name, `MemoryError` included."""
    if name == "MemoryError":
        return MemoryError()
    number = getattr(errno, name)
    return OSError(number, os.strerror(number))
