"""Worker processes with the tiny model, killed and stopped in the middle of a job."""

import json
import signal
import time
from pathlib import Path

import pytest

from tests.support.wait import wait_until
from tests.support.workers.cloud import Cloud
from tests.support.workers.worker_process import WorkerProcess

pytestmark = [pytest.mark.long, pytest.mark.model, pytest.mark.timeout(900)]

SMALL_CHUNKS = {"CHUNK_DURATION_MINUTES": "0.5", "GPU_BATCH_SIZE": "1"}
CHUNKS_BEFORE = 3


def in_the_middle(worker: WorkerProcess) -> None:
    """Return when it has done some chunks of its job and has others before it."""
    worker.wait_for("chunk.done", CHUNKS_BEFORE)
    assert worker.logged("job.done") == []


async def test_a_job_survives_the_death_of_the_inference_process(cloud: Cloud, ten_minutes: Path) -> None:
    async with cloud.pipeline() as pipeline:
        uri = await pipeline.upload(ten_minutes)
        with cloud.process(**SMALL_CHUNKS) as worker:
            worker.wait_ready()
            model = worker.inference()
            await pipeline.submit(uri)
            in_the_middle(worker)

            model.kill()
            completed = (await pipeline.ending(seconds=300)).completed

            worker.wait_for("delivery.settled", outcome="ack")
        unsettled = await pipeline.unsettled()

    assert len(worker.logged("engine.replaced")) == 1
    assert len({event.event_id for event in pipeline.events}) == 2
    assert completed.transcription_metadata.deliveries == 1
    assert unsettled == []


async def test_nothing_outlives_a_killed_worker(cloud: Cloud, ten_minutes: Path) -> None:
    async with cloud.pipeline() as pipeline:
        with cloud.process(**SMALL_CHUNKS) as worker:
            worker.wait_ready()
            await pipeline.submit(await pipeline.upload(ten_minutes))
            in_the_middle(worker)
            family = [" ".join(member.cmdline()) for member in worker.family()]

            worker.send(signal.SIGKILL)
            worker.wait(5)

            wait_until(lambda: worker.family() == [], seconds=5)
    for program in ("worker run", "parakeet.child", "ffmpeg"):
        assert any(program in line for line in family), f"{program} did not run: {family}"


@pytest.mark.alone
async def test_a_stopped_workers_job_is_finished_by_another_with_the_same_artefacts(
    cloud: Cloud, ten_minutes: Path
) -> None:
    async with cloud.pipeline() as pipeline:
        uri = await pipeline.upload(ten_minutes)
        with cloud.process("one", **SMALL_CHUNKS) as one, cloud.process("two", **SMALL_CHUNKS) as two:
            one.wait_ready()
            two.wait_ready()
            await pipeline.submit(uri)
            wait_until(lambda: one.logged("chunk.done") or two.logged("chunk.done"), seconds=60)
            first, second = (one, two) if one.logged("chunk.done") else (two, one)
            in_the_middle(first)

            told_at = time.monotonic()
            first.send(signal.SIGTERM)
            status, seconds = first.wait(10), time.monotonic() - told_at
            completed = (await pipeline.ending(seconds=300)).completed

            disturbed, files = await pipeline.artefacts(completed), files_below(cloud.downloads)
            events = {event.event_id for event in pipeline.events}
            await pipeline.forget("job-1")
            await pipeline.submit(uri)
            undisturbed = await pipeline.artefacts((await pipeline.ending(seconds=300)).completed)

    done, resumed = len(first.logged("chunk.done")), len(second.logged("chunk.resumed"))
    assert (status, seconds < 8, len(first.logged("delivery.nacked", count=1))) == (0, True, 1)
    assert CHUNKS_BEFORE <= done <= resumed == completed.transcription_metadata.chunks_resumed
    assert len(events) == 2
    assert disturbed == undisturbed
    assert files == []


@pytest.mark.parametrize("channels", ["mix", "apart"])
async def test_a_killed_workers_job_with_keyterms_is_finished_by_another_with_the_same_artefacts(
    cloud: Cloud, ten_minutes: Path, five_minutes_of_stereo: Path, channels: str
) -> None:
    fields = {"keyterms": ["Anna", "David", "Helen", "black box", ".*", "名前"], "channels": channels}
    settings = {**SMALL_CHUNKS, "CLAIM_TTL_SECONDS": "3"}
    async with cloud.pipeline() as pipeline:
        uri = await pipeline.upload(ten_minutes if channels == "mix" else five_minutes_of_stereo)
        with cloud.process("one", **settings) as one:
            one.wait_ready()
            await pipeline.submit(uri, **fields)
            in_the_middle(one)
            one.send(signal.SIGKILL)
            one.wait(5)
        with cloud.process("two", **settings) as two:
            two.wait_ready()
            await pipeline.submit(uri, **fields)
            completed = (await pipeline.ending(seconds=300)).completed

            disturbed = await pipeline.artefacts(completed)
            await pipeline.forget("job-1")
            await pipeline.submit(uri, **fields)
            again = (await pipeline.ending(seconds=300)).completed
            undisturbed = await pipeline.artefacts(again)

    told, quiet = completed.transcription_metadata, again.transcription_metadata
    assert CHUNKS_BEFORE <= len(one.logged("chunk.done")) <= told.chunks_resumed == len(two.logged("chunk.resumed"))
    assert disturbed == undisturbed
    assert told.keyterms_found == quiet.keyterms_found == ("Anna", "black box", "David", "Helen")
    (transcript,) = (content for name, content in disturbed.items() if name.endswith("_transcript.json"))
    assert len(json.loads(transcript)["results"]["channels"]) == (1 if channels == "mix" else 2)
    assert told.keyterms_unspeakable == quiet.keyterms_unspeakable == (".*", "名前")


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
