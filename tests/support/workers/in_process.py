"""A worker on the test's event loop, wired as `worker.app.worker` wires it, with its health port."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from tests.support.workers.cloud import Cloud
from tests.support.workers.pipeline import Pipeline
from worker.adapters.gpu import Gpus
from worker.adapters.machine.clock import SystemClock
from worker.adapters.pubsub.backlog_metric import BacklogMetric
from worker.app.cloud import open_cloud
from worker.app.engines import engines_of, make_decoder, open_deepgram
from worker.app.monitor import Watch, identity_of, watching
from worker.app.worker import make_consumer, routing_policy
from worker.commands.health_port import fetch
from worker.core.jobs.board import Board
from worker.ports import WindowRecogniser
from worker.settings import read_settings


@dataclass(frozen=True, kw_only=True)
class Watched:
    pipeline: Pipeline
    url: str
    watch: Watch
    serve: Callable[[], None]
    """Snapshot of a consumer that pulls messages from the beginning."""

    async def get(self, page: str) -> tuple[int, bytes]:
        """Return the answer of the health port, requested from a thread of the test."""
        return await asyncio.to_thread(fetch, f"{self.url}/{page}")

    async def status(self, page: str) -> int:
        return (await self.get(page))[0]


@asynccontextmanager
async def watched(
    cloud: Cloud,
    engine: WindowRecogniser,
    gpus: Gpus | None = None,
    render: Callable[[], bytes] | None = None,
    urgent_backlog: BacklogMetric | None = None,
    **settings: Any,
) -> AsyncIterator[Watched]:
    """Leaving ends it at once."""
    with mock.patch.dict(os.environ, cloud.environment):
        effective, board = read_settings({**os.environ, **settings}), Board()
        engine_settings, money, jobs = effective.engine, effective.money, effective.jobs
        watch = Watch(board, gpus or Gpus(None), SystemClock(), urgent_backlog=urgent_backlog)
        async with (
            watching(effective.telemetry, identity_of("w-1", effective.cloud, engine_settings), watch, render) as url,
            open_cloud(effective.cloud) as clients,
            open_deepgram(engine_settings, money, clients.store, clients.names.state_bucket) as deepgram,
            cloud.pipeline() as pipeline,
        ):
            engines = engines_of(engine_settings, money, engine, deepgram)
            decoder, policy = make_decoder(jobs, engine_settings), routing_policy(effective.routing, engine_settings)
            consumer = await make_consumer(clients, engines, decoder, policy, jobs, cloud.downloads, board)
            run = asyncio.create_task(consumer.run(), name="worker")
            try:
                yield Watched(pipeline=pipeline, url=url, watch=watch, serve=lambda: watch.serving(engines, consumer))
            finally:
                consumer.stop("the test is over")
                consumer.stop("and does not wait for the pull in flight")
                await run
