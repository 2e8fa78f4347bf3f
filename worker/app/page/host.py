"""The pages of one worker's health port, and of a fleet of them."""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import httpx

from worker.adapters.web.health_document import SeenWorker, read_health
from worker.adapters.web.pages import Pages, Upload, is_loopback
from worker.app.page.results import StateBucket
from worker.app.page.source import WorkersPage
from worker.app.status import Identity
from worker.settings import CloudSettings

ANSWER_SECONDS = 2.0
MOST_BYTES = 4 << 20


def worker_pages(health: Callable[[], bytes], identity: Identity, host: str, cloud: CloudSettings | None) -> Pages:
    """Return the pages of this worker. Where others can reach `host` they hold the health document alone."""
    only_local = is_loopback(host)

    async def workers() -> Sequence[SeenWorker]:
        return [SeenWorker(url="", health=read_health(json.loads(health())), problem="no condition yet")]

    bucket = state_bucket(cloud) if cloud is not None and only_local else None
    return Pages(
        source=WorkersPage(workers=workers, bucket=bucket),
        version=identity.versions.get("klipstream-worker", ""),
        only_local=only_local,
    )


def fleet_pages(
    urls: Sequence[str],
    cloud: CloudSettings,
    *,
    objects: Path | None = None,
    upload: Upload | None = None,
    is_starting: Callable[[], bool] = lambda: False,
) -> Pages:
    """Return the pages of the workers at `urls`, for this machine alone; `is_starting` excuses a lack of answers."""

    async def workers() -> Sequence[SeenWorker]:
        async with httpx.AsyncClient(timeout=ANSWER_SECONDS, trust_env=False) as client:
            seen = await asyncio.gather(*(_ask(client, url) for url in urls))
            return [replace(worker, is_starting=worker.health is None and is_starting()) for worker in seen]

    return Pages(
        source=WorkersPage(workers=workers, bucket=state_bucket(cloud), objects=objects),
        version=version("klipstream-worker"),
        only_local=True,
        upload=upload,
    )


def state_bucket(cloud: CloudSettings) -> StateBucket | None:
    """Return the state bucket; None where no setting names one."""
    return StateBucket(project=cloud.project_id, name=cloud.state_bucket) if cloud.state_bucket else None


async def _ask(client: httpx.AsyncClient, url: str) -> SeenWorker:
    try:
        answer = await client.get(f"{url.rstrip('/')}/health")
        document = json.loads(answer.content[:MOST_BYTES])
    except httpx.HTTPError as exc:
        return SeenWorker(url=url, health=None, problem=str(exc) or "no answer")
    except (httpx.InvalidURL, ValueError):
        return SeenWorker(url=url, health=None, problem="not a worker's answer")
    health = read_health(document)
    return SeenWorker(url=url, health=health, problem="" if health else "not a worker's answer")
