"""The clients of Google Cloud, or of the development servers, that the settings name."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from worker.adapters.gcs import GcsObjectStore, open_object_store
from worker.adapters.pubsub.pubsub import PubSub, open_pubsub
from worker.settings import CloudSettings


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """The clients of Pub/Sub and Cloud Storage, and the names that this worker uses there."""

    pubsub: PubSub
    store: GcsObjectStore
    names: CloudSettings


@asynccontextmanager
async def open_cloud(names: CloudSettings) -> AsyncIterator[Cloud]:
    """Connect to the servers that the settings name. Nothing is verified yet."""
    async with (
        open_object_store(project=names.project_id) as store,
        open_pubsub(names.project_id, emulator_host=names.pubsub_emulator_host) as pubsub,
    ):
        yield Cloud(pubsub=pubsub, store=store, names=names)
