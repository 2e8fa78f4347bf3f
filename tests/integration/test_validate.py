"""The acceptance run as an operator runs it, against a worker process on development servers."""

import asyncio
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.support.audio.media import riff_wav
from tests.support.jobs.harness import speech
from tests.support.workers.cloud import Cloud
from worker.app.sample import SPEECH

# A sixth of an hour at null's speed is done in a second or two; 40 times real time would be 15 s.
LENGTH = ("--hours", "0.1667")


async def validated(cloud: Cloud, *options: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "worker", "validate", *options]
    environment = {**os.environ, **cloud.environment, "COLUMNS": "200"}
    return await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, timeout=200, check=False
    )


def verdicts(document: dict[str, Any]) -> dict[str, bool | None]:
    return {criterion["name"]: criterion["passed"] for criterion in document["criteria"]}


async def test_a_fast_worker_passes_with_made_speech_of_each_length_by_each_method(cloud: Cloud) -> None:
    with cloud.process(PARAKEET_MODEL_NAME="null") as worker:
        worker.wait_ready()

        done = await validated(
            cloud, *LENGTH, "--hours", "0.0833", "--method", "auto", "--method", "parakeet", "--at-once", "2", "--json"
        )

    told = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert told["passed"]
    assert verdicts(told) == {
        "success": True,
        "speed": True,
        "fallback": True,
        "cost": True,
        "savings": True,
        "up to 0.5 h of audio": True,
        "up to 2 h of audio": None,
        "up to 4 h of audio": None,
    }
    lengths = sorted(job["event"]["transcription_metadata"]["audio_duration_seconds"] for job in told["jobs"])
    assert lengths == pytest.approx([300, 300, 600, 600], abs=1)
    assert sorted(job["force_method"] for job in told["jobs"]) == ["auto", "auto", "parakeet", "parakeet"]


async def test_a_worker_slower_than_promised_fails_with_a_table_that_says_so(cloud: Cloud) -> None:
    with cloud.process(PARAKEET_MODEL_NAME="null:20x") as worker:
        async with cloud.pipeline() as pipeline:
            uri = await pipeline.upload(riff_wav(speech(60).astype("<i2").tobytes()))
        worker.wait_ready()

        done = await validated(cloud, uri)

    rows = {line.split(" ")[0]: line for line in done.stdout.splitlines()}
    assert done.returncode == 1, done.stderr
    assert "FAIL" in rows["speed"]
    assert "pass" in rows["success"]
    assert "completed" in done.stdout


async def test_jobs_that_fail_fail_the_run(cloud: Cloud) -> None:
    with cloud.process(PARAKEET_MODEL_NAME="null") as worker:
        worker.wait_ready()

        done = await validated(cloud, "gs://local-audio/absent", "--json")

    told = json.loads(done.stdout)
    assert done.returncode == 1
    assert told["jobs"][0]["event"]["error"]["error_code"] == "AUDIO_NOT_FOUND"
    assert verdicts(told)["success"] is False


async def test_a_file_here_is_uploaded_first(cloud: Cloud) -> None:
    with cloud.process(PARAKEET_MODEL_NAME="null") as worker:
        worker.wait_ready()

        done = await validated(cloud, str(SPEECH), "--json")

    assert json.loads(done.stdout)["jobs"][0]["audio_uri"].startswith("gs://local-audio/validation-"), done.stderr


async def test_without_a_worker_the_run_fails_when_its_time_is_over(cloud: Cloud) -> None:
    done = await validated(cloud, "--hours", "0.001", "--timeout", "1")

    assert done.returncode == 1, done.stderr
    assert "no answer in time" in done.stdout


async def test_made_speech_without_a_bucket_is_a_usage_error(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "AUDIO_BUCKET", "")

    done = await validated(cloud, "--bucket", "", "--hours", "1")

    assert done.returncode == 2
    assert "--bucket" in done.stderr


async def test_a_bucket_with_its_scheme_is_a_usage_error_that_names_the_bucket(cloud: Cloud) -> None:
    done = await validated(cloud, "--bucket", "gs://my-audio/", "--hours", "1")

    assert done.returncode == 2
    assert "write my-audio" in done.stderr
