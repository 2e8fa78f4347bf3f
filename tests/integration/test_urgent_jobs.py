"""A whole worker on the development servers: urgent jobs before queued ones, and each done once."""

import asyncio
import json
from collections import Counter

from schemas.events import CompletedEvent, EventType
from tests.support.audio.media import riff_wav
from tests.support.jobs.harness import speech
from tests.support.wait import eventually
from tests.support.workers.cloud import Cloud
from worker.adapters.memory.recogniser import MemoryRecogniser
from worker.embedded.local_cloud import JOBS_SUBSCRIPTION_URGENT
from worker.ports import Pcm

QUEUED, SLOTS = 100, 4


async def test_an_urgent_job_behind_a_hundred_queued_ones_starts_with_the_next_free_slots_and_is_done_once(
    cloud: Cloud,
) -> None:
    begun: list[str] = []
    published = asyncio.Event()

    async def pace(_samples: Pcm, job_id: str) -> None:
        begun.append(job_id)
        await published.wait()

    async with cloud.pipeline() as pipeline:
        uri = await pipeline.upload(riff_wav(speech(5).tobytes()))
        for number in range(QUEUED):
            await pipeline.submit(uri, f"plain-{number}")
        job = {"job_id": "urgent", "video_id": "v", "audio_uri": uri, "priority": "urgent"}

        settings = {"max_concurrent_jobs": SLOTS, "jobs_subscription_urgent": JOBS_SUBSCRIPTION_URGENT}
        async with cloud.worker(MemoryRecogniser(script=pace), **settings):
            await eventually(lambda: asyncio.sleep(0, len(begun) >= SLOTS))
            await pipeline.publish(json.dumps(job).encode(), priority="urgent")
            before = len(begun)
            published.set()
            await pipeline.ending("urgent")
            await eventually(lambda: asyncio.sleep(0, len(begun) > QUEUED), seconds=120)
            await pipeline.endings(2, "urgent", seconds=60)

    # a slot that was already free when the message came, and the jobs that start beside it
    assert begun.index("urgent") <= before + 2 * SLOTS
    assert set(Counter(begun).values()) == {1}
    ends = [
        event for event in pipeline.events if event.event_type is EventType.COMPLETED and event.job.job_id == "urgent"
    ]
    assert len({event.event_id for event in ends if isinstance(event, CompletedEvent)}) == 1
