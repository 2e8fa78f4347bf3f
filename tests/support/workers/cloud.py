"""The whole worker under test, in two forms: on the test's own event loop with any engine, and as a process.

Both are wired by `worker.app.worker` and talk to real servers.
"""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tests.support.queues.pubsub_server import EMULATOR
from tests.support.wait import eventually
from tests.support.workers.pipeline import Pipeline, pipeline_of
from tests.support.workers.worker_process import WorkerProcess
from worker.adapters.memory.recogniser import MemoryRecogniser
from worker.app.cloud import open_cloud
from worker.app.engines import engines_of, make_decoder, open_deepgram
from worker.app.worker import make_consumer, routing_policy
from worker.core.costs.budget import PaidRecogniser
from worker.core.delivery.consumer import Consumer
from worker.embedded.gcs import EmbeddedGcs
from worker.embedded.local_cloud import AUDIO_BUCKET, OUTPUT_BUCKET, PLANS, STATE_BUCKET, LocalCloud
from worker.embedded.own_thread import in_thread
from worker.embedded.pubsub import EmbeddedPubSub
from worker.embedded.pubsub.provision import provision
from worker.ports import WindowRecogniser
from worker.settings import read_settings

EITHER_PUBSUB = pytest.mark.parametrize("cloud", ["embedded", EMULATOR], indirect=True)
"""Runs a test on the official Pub/Sub emulator too."""


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """Servers with a project of the test's own, and a folder for what worker processes leave."""

    local: LocalCloud
    project: str
    folder: Path

    @property
    def environment(self) -> Mapping[str, str]:
        """Names and addresses that a worker on these servers needs."""
        here = {"PROJECT_ID": self.project, "TEMP_DIR": str(self.downloads)}
        return {**self.local.environment, **here}

    @property
    def downloads(self) -> Path:
        """Folder of the workers' temporary files."""
        return self.folder / "downloads"

    @asynccontextmanager
    async def pipeline(self) -> AsyncIterator[Pipeline]:
        """The other side, without a worker."""
        async with pipeline_of(self.local, self.project) as pipeline:
            yield pipeline

    @asynccontextmanager
    async def working(
        self, engine: WindowRecogniser | None = None, cloud_engine: PaidRecogniser | None = None, **settings: Any
    ) -> AsyncIterator[Pipeline]:
        """The other side, with a worker on this event loop; leaving waits until it has settled all it holds."""
        async with self.pipeline() as pipeline, self.worker(engine, cloud_engine, **settings) as consumer:
            yield pipeline
            await eventually(lambda: asyncio.sleep(0, consumer.snapshot.jobs == consumer.snapshot.unsettled == 0))

    @asynccontextmanager
    async def worker(
        self, engine: WindowRecogniser | None = None, cloud_engine: PaidRecogniser | None = None, **settings: Any
    ) -> AsyncIterator[Consumer]:
        """Run a worker on this event loop; leaving stops it at once. Deepgram is the settings' by default."""
        with mock.patch.dict(os.environ, self.environment):
            effective = read_settings({**os.environ, **settings})
            engine_settings, money, jobs = effective.engine, effective.money, effective.jobs
            async with (
                open_cloud(effective.cloud) as clients,
                open_deepgram(engine_settings, money, clients.store, clients.names.state_bucket) as deepgram,
            ):
                engines = engines_of(engine_settings, money, engine or MemoryRecogniser(), cloud_engine or deepgram)
                decoder, policy = (
                    make_decoder(jobs, engine_settings),
                    routing_policy(effective.routing, engine_settings),
                )
                consumer = await make_consumer(clients, engines, decoder, policy, jobs, self.downloads)
                async with _running(consumer):
                    yield consumer

    def process(self, name: str = "worker", **environment: str) -> AbstractContextManager[WorkerProcess]:
        """A worker process with the tiny model, still starting; leaving kills it and all it started."""
        return WorkerProcess(self.folder / f"{name}.log", {**self.environment, **environment})


@asynccontextmanager
async def _running(consumer: Consumer) -> AsyncIterator[None]:
    run = asyncio.create_task(consumer.run(), name="worker")
    try:
        yield
    finally:
        consumer.stop("the test is over")
        consumer.stop("and does not wait for the pull in flight")
        await run


@contextmanager
def cloud_in(folder: Path, pubsub_target: str | None = None) -> Iterator[Cloud]:
    """Run servers with their files in the folder; Pub/Sub is the server at `target`, unless it is None."""
    (folder / "downloads").mkdir()
    with _pubsub(pubsub_target) as target, EmbeddedGcs(folder / "gcs") as storage:
        storage.create_buckets([AUDIO_BUCKET, OUTPUT_BUCKET, STATE_BUCKET])
        project = f"test-{uuid.uuid4().hex[:12]}"
        # Without a backoff: a nacked message can be pulled at once.
        asyncio.run(provision(target, project, *(replace(plan, min_backoff_seconds=None) for plan in PLANS)))
        local = LocalCloud(pubsub_target=target, storage_url=storage.url, root=folder / "gcs")
        yield Cloud(local=local, project=project, folder=folder)


@contextmanager
def _pubsub(target: str | None) -> Iterator[str]:
    if target is not None:
        yield target
        return
    with in_thread(EmbeddedPubSub()) as server:
        yield server.target
