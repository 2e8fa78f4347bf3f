"""Costs of jobs, from the markers in the state bucket."""

import json
import os
import subprocess
import sys

import pytest
from pydantic import SecretStr

from tests.support.audio.media import riff_wav
from tests.support.jobs.harness import speech
from tests.support.services.deepgram import hear
from tests.support.workers.cloud import Cloud
from worker.adapters.memory.cloud_recogniser import MemoryCloudRecogniser
from worker.core.costs.budget import NoLimit, PaidRecogniser
from worker.embedded.deepgram import EmbeddedDeepgram

AUDIO = riff_wav(speech(65).astype("<i2").tobytes())


async def test_keyterms_reach_deepgram_and_the_jobs_bill(cloud: Cloud) -> None:
    async with EmbeddedDeepgram(hear) as deepgram:
        key = {"deepgram_api_key": SecretStr(deepgram.api_key), "deepgram_base_url": deepgram.url}
        async with cloud.working(**key) as pipeline:
            uri = await pipeline.upload(AUDIO)
            await pipeline.submit(uri, force_method="deepgram", keyterms=["C++ & C#", "Zoë", ".*"])
            ending = await pipeline.ending()

    sent = [value for name, value in deepgram.receipts[0].query if name == "keyterm"]
    assert sent == ["C++ & C#", "Zoë"]
    assert ending.completed.transcription_metadata.keyterms_unspeakable == (".*",)
    assert ending.cost.usd_total == pytest.approx(65 / 60 * (0.0045 + 0.0013), abs=1e-6)


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
