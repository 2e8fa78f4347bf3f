"""Costs of jobs, from the markers in the state bucket."""

import json
import os
import subprocess
import sys

from tests.support.audio.media import riff_wav
from tests.support.jobs.harness import speech
from tests.support.workers.cloud import Cloud
from worker.adapters.memory.cloud_recogniser import MemoryCloudRecogniser
from worker.core.costs.budget import NoLimit
from worker.core.jobs.paid_recogniser import PaidRecogniser

AUDIO = riff_wav(speech(65).astype("<i2").tobytes())


async def test_the_cost_of_jobs_can_be_read_from_the_state_bucket(cloud: Cloud) -> None:
    deepgram = PaidRecogniser(recogniser=MemoryCloudRecogniser(), usd_per_minute=0.0045, budget=NoLimit())
    async with cloud.working(cloud_engine=deepgram, chunk_duration_minutes=0.5) as pipeline:
        uri = await pipeline.upload(AUDIO)
        await pipeline.submit(uri, "job-1", force_method="hybrid")
        await pipeline.submit(uri, "job-2")
        bills = [(await pipeline.ending(job_id)).cost for job_id in ("job-1", "job-2")]

    command = [sys.executable, "-m", "worker", "costs", "--since", "1h", "--json"]
    ended = subprocess.run(command, env={**os.environ, **cloud.environment}, capture_output=True, check=True)  # noqa: ASYNC221

    rows = [json.loads(line) for line in ended.stdout.splitlines()]
    by_engine = {row["engine"]: row for row in rows if row["day"] == "all"}
    assert by_engine["all"]["jobs"] == 2
    assert by_engine["all"]["usd"] == round(sum(bill.usd_total for bill in bills), 6)
    assert by_engine["deepgram"]["audio_hours"] == round(bills[0].engines[1].audio_seconds / 3600, 4)
    assert by_engine["all"]["audio_hours"] == round(130 / 3600, 4)
    assert by_engine["all"]["fallback_percent"] == 0.0
