"""The clients of Google Cloud, or of the development servers, that the settings name."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from worker.adapters.gcs import GcsObjectStore, open_object_store
from worker.adapters.pubsub.pubsub import PubSub, open_pubsub
from worker.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """The clients of Pub/Sub and Cloud Storage."""

    pubsub: PubSub
    store: GcsObjectStore


@asynccontextmanager
async def open_cloud(settings: Settings) -> AsyncIterator[Cloud]:
    """Connect to what the settings name. Nothing is verified yet."""
    async with (
        open_object_store(project=settings.project_id) as store,
        open_pubsub(settings.project_id, emulator_host=settings.pubsub_emulator_host) as pubsub,
    ):
        yield Cloud(pubsub=pubsub, store=store)
