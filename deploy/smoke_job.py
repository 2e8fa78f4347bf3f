"""One job through a running worker on development servers: upload a sample, submit it, wait until it has completed."""

import asyncio
import os
import sys
import uuid

from schemas.events import CompletedEvent, FailedEvent
from worker import client
from worker.adapters.gcs import open_object_store
from worker.embedded.samples import samples
from worker.ports import ObjectRef

MOST_SECONDS = 240.0


async def upload(bucket: str) -> str:
    """Put the first sample into the bucket; returns its URI."""
    source = samples()[0].path
    async with open_object_store(project=os.environ["PROJECT_ID"]) as store:
        await store.upload_file(source, ObjectRef(bucket, source.name), "application/octet-stream")
    return f"gs://{bucket}/{source.name}"


def main() -> None:
    """End with an error unless the job completes, with words."""
    project, job_id = os.environ["PROJECT_ID"], f"smoke-{uuid.uuid4().hex[:8]}"
    uri = asyncio.run(upload(os.environ["AUDIO_BUCKET"]))
    job = {"job_id": job_id, "video_id": "smoke", "audio_uri": uri}
    client.submit(job, project_id=project, topic=os.environ["JOBS_TOPIC"])
    subscription = os.environ["COMPLETION_SUBSCRIPTION"]
    with client.completions(
        project_id=project, subscription=subscription, job_id=job_id, timeout_seconds=MOST_SECONDS
    ) as events:
        ended = next((event for event in events if isinstance(event, CompletedEvent | FailedEvent)), None)
    if not isinstance(ended, CompletedEvent) or not ended.transcription_metadata.words_count:
        sys.exit(f"the job did not complete: {ended}")
    print(f"# completed {job_id}: {ended.transcription_metadata.words_count} words")


main()
