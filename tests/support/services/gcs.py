"""Stores on the embedded Cloud Storage server, for tests."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from unittest import mock

from worker.adapters.gcs import GcsObjectStore, Retries, open_object_store

FAST = Retries(attempts=4, first_wait_seconds=0.001, longest_wait_seconds=0.01)


@asynccontextmanager
async def store_at(url: str, retries: Retries = FAST) -> AsyncIterator[GcsObjectStore]:
    with mock.patch.dict(os.environ, STORAGE_EMULATOR_HOST=url):
        async with open_object_store(project="test", retries=retries) as store:
            yield store
