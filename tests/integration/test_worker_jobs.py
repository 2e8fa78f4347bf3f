"""Jobs through the whole worker on both Pub/Sub servers: the path itself, without a model."""

import asyncio

from schemas.codes import ErrorCode
from tests.support.audio.media import float_wav
from tests.support.jobs.harness import speech
from tests.support.workers.cloud import EITHER_PUBSUB, Cloud

AUDIO = float_wav(speech(65).astype("<f4") / 32_768)


@EITHER_PUBSUB
async def test_a_job_goes_in_and_its_artefacts_and_events_come_out(cloud: Cloud) -> None:
    async with cloud.working() as pipeline:
        await pipeline.submit(await pipeline.upload(AUDIO), outputs=["vtt"], metadata={"k": [1]})
        ending = await pipeline.ending()

    async with cloud.pipeline() as pipeline:
        artefacts = await pipeline.artefacts(ending.completed)
        unsettled, state = await pipeline.unsettled(), await pipeline.state()

    assert sorted(artefacts) == [
        "audio_vod-job-1.vtt",
        "audio_vod-job-1_paragraphs.csv",
        "audio_vod-job-1_transcript.json",
        "audio_vod-job-1_words.csv",
    ]
    assert ending.completed.job.metadata == {"k": [1]}
    assert (
        artefacts["audio_vod-job-1_words.csv"].count(b"\r\n") == ending.completed.transcription_metadata.words_count + 1
    )
    assert ending.cost.usd_total == ending.completed.transcription_metadata.cost_estimate_usd
    assert (unsettled, state) == ([], ["results/job-1.json"])
    assert list(cloud.downloads.iterdir()) == []


@EITHER_PUBSUB
async def test_a_message_that_is_no_job_gets_a_failed_event_and_a_dead_letter(cloud: Cloud) -> None:
    async with cloud.working() as pipeline:
        await pipeline.publish(b'{"job_id": "job-1"}', origin="a test")
        failed = (await pipeline.ending()).failed

    async with cloud.pipeline() as pipeline:
        (letter,) = await pipeline.dead_letters()
        unsettled = await pipeline.unsettled()

    assert failed.error.error_code is ErrorCode.INVALID_JOB
    assert failed.error.violations == letter.violations == ("video_id: is required", "audio_uri: is required")
    assert (letter.original.data, letter.original.attributes) == (b'{"job_id": "job-1"}', {"origin": "a test"})
    assert unsettled == []


@EITHER_PUBSUB
async def test_a_job_published_three_times_is_one_job(cloud: Cloud) -> None:
    async with cloud.working() as pipeline:
        uri = await pipeline.upload(AUDIO)
        await asyncio.gather(*(pipeline.submit(uri) for _ in range(3)))
        await pipeline.endings(3)

    assert len({event.event_id for event in pipeline.events}) == 2
    assert len(pipeline.events) == 6


async def test_many_jobs_share_the_slots_and_each_gets_its_own(cloud: Cloud) -> None:
    jobs = [f"job-{number}" for number in range(12)]

    async with cloud.working(chunk_duration_minutes=0.5) as pipeline:
        uri = await pipeline.upload(AUDIO)
        await asyncio.gather(*(pipeline.submit(uri, job_id) for job_id in jobs))
        endings = [await pipeline.ending(job_id) for job_id in jobs]

    async with cloud.pipeline() as pipeline:
        words = {
            (await pipeline.artefacts(ending.completed))[f"audio_vod-{ending.completed.job.job_id}_words.csv"]
            for ending in endings
        }
    assert len(words) == 1
