"""SIGTERM while Deepgram works for a job, ten times: answers that come within 3 s are kept and not paid for again."""

import asyncio
import itertools
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

from tests.support.audio.media import riff_wav
from tests.support.jobs.harness import speech
from tests.support.services.deepgram import hear
from tests.support.wait import eventually
from tests.support.workers.cloud import Cloud
from tests.support.workers.worker_process import TINY, WorkerProcess
from worker.core.transcript.planning import ChunkCutter
from worker.embedded.deepgram import EmbeddedDeepgram, Slow
from worker.embedded.deepgram.audio import fingerprint
from worker.embedded.own_thread import in_thread
from worker.ports import Pcm

TRIES = 10
SECONDS_TO_ANSWER = tuple(0.05 + 2.8 * number / (TRIES - 1) for number in range(TRIES))
MOST_EXIT_SECONDS = 8.0
CHUNK_SECONDS = 8

pytestmark = pytest.mark.alone


@dataclass
class Pace:
    """Delays of the next requests in seconds; further requests are answered at once."""

    slow: dict[int, float] = field(default_factory=dict)

    def __call__(self, number: int) -> Slow | None:
        return Slow(seconds=self.slow[number]) if number in self.slow else None


@dataclass
class Crew:
    """Worker processes that have nothing but Deepgram."""

    cloud: Cloud
    deepgram: EmbeddedDeepgram
    stack: ExitStack
    names: Iterator[int] = field(default_factory=itertools.count)

    def start(self) -> WorkerProcess:
        return self.stack.enter_context(self.cloud.process(f"worker-{next(self.names)}", **self._environment()))

    def _environment(self) -> Mapping[str, str]:
        return {
            **TINY,
            "ENABLE_GPU_TRANSCRIPTION": "false",
            "DEEPGRAM_API_KEY": self.deepgram.api_key,
            "DEEPGRAM_BASE_URL": self.deepgram.url,
            "CHUNK_DURATION_MINUTES": str(CHUNK_SECONDS / 60),
            "CLAIM_TTL_SECONDS": "10",
        }


def audio_of(number: int) -> Pcm:
    return speech(29, seed=number)


def chunks_of(audio: Pcm) -> set[str]:
    """The fingerprints of the chunks that a worker will cut."""
    cutter = ChunkCutter(chunk_seconds=CHUNK_SECONDS)
    chunks = (*cutter.push(audio), *cutter.finish())
    return {fingerprint(audio[chunk.start_sample : chunk.end_sample]) for chunk in chunks}


async def stop_at_work(worker: WorkerProcess, deepgram: EmbeddedDeepgram, requests_before: int) -> float:
    """Send SIGTERM once Deepgram has been sent two chunks; return the time of that."""

    async def two_were_sent() -> bool:
        sent = deepgram.receipts[requests_before:]
        return len(sent) == 2 and all(receipt.whole_body for receipt in sent)

    await eventually(two_were_sent, 60)
    worker.send(signal.SIGTERM)
    return time.monotonic()


async def seconds_to_exit(worker: WorkerProcess, stopped_at: float) -> float:
    await asyncio.to_thread(worker.wait, 3 * MOST_EXIT_SECONDS)
    return time.monotonic() - stopped_at


@pytest.mark.timeout(400)
async def test_answers_that_come_within_three_seconds_of_sigterm_are_paid_for_once(cloud: Cloud) -> None:
    pace, exits = Pace(), []
    with in_thread(EmbeddedDeepgram(hear, misbehave=pace)) as deepgram, ExitStack() as stack:
        crew = Crew(cloud, deepgram, stack)
        worker = crew.start()
        async with cloud.pipeline() as pipeline:
            for number, seconds in enumerate(SECONDS_TO_ANSWER):
                before, job_id = len(deepgram.receipts), f"job-{number}"
                pace.slow = {before: seconds, before + 1: seconds}
                uri = await pipeline.upload(riff_wav(audio_of(number).astype("<i2").tobytes()), job_id)
                await pipeline.submit(uri, job_id)
                stopped_at = await stop_at_work(worker, deepgram, before)
                successor = crew.start()  # it loads meanwhile, does the rest, and is the next to be stopped
                exits.append(await seconds_to_exit(worker, stopped_at))
                worker = successor
                assert (await pipeline.ending(job_id)).completed.transcription_metadata.chunks_resumed == 2

    paid = deepgram.payments()
    assert set(paid) == set().union(*(chunks_of(audio_of(number)) for number in range(TRIES)))
    assert set(paid.values()) == {1}
    assert max(exits) < MOST_EXIT_SECONDS


async def test_a_missing_answer_does_not_delay_the_shutdown(cloud: Cloud) -> None:
    pace = Pace({0: 60.0, 1: 60.0})
    with in_thread(EmbeddedDeepgram(hear, misbehave=pace)) as deepgram, ExitStack() as stack:
        crew = Crew(cloud, deepgram, stack)
        worker = crew.start()
        async with cloud.pipeline() as pipeline:
            await pipeline.submit(await pipeline.upload(riff_wav(audio_of(0).astype("<i2").tobytes())))
            stopped_at = await stop_at_work(worker, deepgram, 0)
            crew.start()
            seconds = await seconds_to_exit(worker, stopped_at)
            ending = await pipeline.ending()

    (stopped,) = worker.logged("delivery.nacked")
    assert 3 < seconds < MOST_EXIT_SECONDS
    assert (stopped["count"], stopped["error"]) == (1, None)
    assert ending.completed.transcription_metadata.deliveries == 2


async def test_a_second_signal_ends_the_wait_for_an_answer(cloud: Cloud) -> None:
    with in_thread(EmbeddedDeepgram(hear, misbehave=lambda _: Slow(seconds=60))) as deepgram, ExitStack() as stack:
        worker = Crew(cloud, deepgram, stack).start()
        async with cloud.pipeline() as pipeline:
            await pipeline.submit(await pipeline.upload(riff_wav(audio_of(0).astype("<i2").tobytes())))
            stopped_at = await stop_at_work(worker, deepgram, 0)
            await asyncio.to_thread(worker.wait_for, "consumer.stopping")

            worker.send(signal.SIGTERM)
            seconds = await seconds_to_exit(worker, stopped_at)

    assert seconds < 3
