"""The baseline of `bench.throughput`: an asyncio loop that makes the worker's calls and nothing else.

`python -m bench.bare_loop` takes its servers from the environment like the worker, pulls jobs and does for each,
in the worker's order and with the same vendor clients, the calls that the worker does for a job of one chunk:
Pub/Sub's, Cloud Storage's and ffmpeg's. It knows no retries, claims, leases, plans, words or prices; what it writes is
as large as what the worker writes. The time that the worker takes beyond it is the price of being one.
"""

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from google.api_core import exceptions
from google.cloud.storage import Blob, Client
from google.pubsub_v1 import PublisherAsyncClient, SubscriberAsyncClient, types
from google.pubsub_v1.services.publisher.transports import PublisherGrpcAsyncIOTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcAsyncIOTransport

from worker.adapters.audio import find_ffmpeg
from worker.adapters.audio.command import Way, decode_arguments, probe_arguments

READY = "ready"
CLAIM, CHECKPOINT, WORDS, PARAGRAPHS, TRANSCRIPT, MARKER = 480, 3_000, 500, 450, 3_500, 4_000
EVENTS = (1_600, 900)
"""Bytes, as measured on the worker with 10 s of audio."""

ONCE: dict[str, Any] = {"retry": None, "timeout": 60.0}


class BareLoop:
    """One pull at a time into `slots` tasks."""

    def __init__(self, subscriber: SubscriberAsyncClient, publisher: PublisherAsyncClient, slots: int) -> None:
        self._subscriber, self._publisher, self._slots = subscriber, publisher, slots
        self._project = os.environ["PROJECT_ID"]
        self._subscription = f"projects/{self._project}/subscriptions/{os.environ['JOBS_SUBSCRIPTION']}"
        self._topic = f"projects/{self._project}/topics/{os.environ['COMPLETION_TOPIC']}"
        self._client = Client(project=self._project)
        self._threads = ThreadPoolExecutor(10)
        self._ffmpeg = find_ffmpeg()
        self._busy: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Work in an endless loop."""
        while True:
            free = self._slots - len(self._busy)
            if not free:
                await asyncio.wait(self._busy, return_when=asyncio.FIRST_COMPLETED)
                continue
            pulled = await self._subscriber.pull(
                types.PullRequest(subscription=self._subscription, max_messages=free), **ONCE
            )
            for message in pulled.received_messages:
                task = asyncio.create_task(self._job(message))
                self._busy.add(task)
                task.add_done_callback(self._busy.discard)

    async def _job(self, received: types.ReceivedMessage) -> None:
        job = json.loads(received.message.data)
        await self._subscriber.modify_ack_deadline(
            types.ModifyAckDeadlineRequest(
                subscription=self._subscription, ack_ids=[received.ack_id], ack_deadline_seconds=10
            ),
            **ONCE,
        )
        await self._work(job["job_id"], job["audio_uri"].removeprefix("gs://").split("/", 1))
        for size in EVENTS:
            message = types.PubsubMessage(data=b" " * size, attributes={"job_id": job["job_id"]})
            await self._publisher.publish(types.PublishRequest(topic=self._topic, messages=[message]), **ONCE)
        await self._subscriber.acknowledge(
            types.AcknowledgeRequest(subscription=self._subscription, ack_ids=[received.ack_id]), **ONCE
        )

    async def _work(self, job_id: str, audio: list[str]) -> None:
        state, output = os.environ["STATE_BUCKET"], os.environ["OUTPUT_BUCKET"]
        claim, result = self._blob(state, f"claims/{job_id}.json"), self._blob(state, f"results/{job_id}.json")
        checkpoint = self._blob(state, f"checkpoints/{job_id}/0.json")
        await self._looked(result)
        await self._looked(claim)
        await self._put(claim, CLAIM, 0)
        await self._looked(result)
        await self._audio(self._blob(*audio))
        await self._looked(checkpoint)
        await self._put(checkpoint, CHECKPOINT, 0)
        await self._put(claim, CLAIM)
        await self._put(claim, CLAIM)
        for name, size in (("words.csv", WORDS), ("paragraphs.csv", PARAGRAPHS), ("transcript.json", TRANSCRIPT)):
            artefact = self._blob(output, f"{job_id}/{name}")
            await self._looked(artefact)
            await self._put(artefact, size, 0)
        await self._put(claim, CLAIM)
        await self._put(result, MARKER, 0)
        await self._thread(lambda: list(self._client.list_blobs(state, prefix=f"checkpoints/{job_id}/", retry=None)))
        await self._thread(lambda: checkpoint.delete(retry=None))
        await self._thread(lambda: claim.delete(if_generation_match=claim.generation, retry=None))

    async def _audio(self, blob: Blob) -> None:
        await self._thread(lambda: blob.reload(retry=None))
        with tempfile.NamedTemporaryFile() as file:
            await self._thread(lambda: blob.download_to_filename(file.name, raw_download=True, retry=None))
            for arguments in (probe_arguments(Path(file.name), Way()), decode_arguments(Path(file.name), Way())):
                process = await asyncio.create_subprocess_exec(
                    self._ffmpeg,
                    *arguments,
                    stdin=file.fileno(),
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.PIPE,
                )
                await process.communicate()
                file.seek(0)

    def _blob(self, bucket: str, name: str) -> Blob:
        return self._client.bucket(bucket).blob(name)

    async def _looked(self, blob: Blob) -> None:
        def reload() -> None:
            try:
                blob.reload(retry=None)
            except exceptions.NotFound:
                return

        await self._thread(reload)

    async def _put(self, blob: Blob, size: int, generation: int | None = None) -> None:
        expected = blob.generation if generation is None else generation
        await self._thread(
            lambda: blob.upload_from_string(b" " * size, if_generation_match=expected, checksum="crc32c", retry=None)
        )

    def _thread(self, call: Callable[[], Any]) -> Awaitable[Any]:
        return asyncio.get_running_loop().run_in_executor(self._threads, call)


async def main() -> None:
    """Say `ready` on stdout, then work until killed."""
    target = os.environ["PUBSUB_EMULATOR_HOST"]
    async with grpc.aio.insecure_channel(target) as first, grpc.aio.insecure_channel(target) as second:
        subscriber = SubscriberAsyncClient(transport=SubscriberGrpcAsyncIOTransport(channel=first))
        publisher = PublisherAsyncClient(transport=PublisherGrpcAsyncIOTransport(channel=second))
        loop = BareLoop(subscriber, publisher, int(os.environ["MAX_CONCURRENT_JOBS"]))
        sys.stdout.write(READY + "\n")
        sys.stdout.flush()
        await loop.run()


if __name__ == "__main__":
    asyncio.run(main())
