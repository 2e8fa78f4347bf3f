"""`klipstream-worker job` on the state that a real worker left."""

import json

from tests.support.audio.media import riff_wav
from tests.support.jobs.harness import speech
from tests.support.workers.cloud import Cloud
from tests.support.workers.console import command


async def test_completed_failed_and_unknown_jobs_print_what_is_known(cloud: Cloud) -> None:
    with cloud.process(PARAKEET_MODEL_NAME="null") as worker:
        worker.wait_ready()
        async with cloud.pipeline() as pipeline:
            uri = await pipeline.upload(riff_wav(speech(20).astype("<i2").tobytes()))
            await pipeline.submit(uri, job_id="job-good")
            await pipeline.submit("gs://local-audio/missing.mp3", job_id="job-lost")
            worker.wait_for("delivery.settled", 2)
    narrow = {**cloud.environment, "COLUMNS": "80"}

    good = await command("job", "job-good", environment=narrow)
    lost = await command("job", "job-l", environment=narrow)
    machine = await command("job", "job-lost", "--json", environment=narrow)
    several = await command("job", "job-", environment=narrow)
    unknown = await command("job", "job-gone", environment=narrow)

    assert (good.exit_code, lost.exit_code, machine.exit_code) == (0, 0, 0)
    assert "1 chunk: 1 parakeet" in good.stdout
    assert "/audio_vod-job-good_words.csv  " in good.stdout
    assert "Transcript" in good.stdout
    document = json.loads(machine.stdout)
    assert (document["status"], document["dead_letter"]["code"]) == ("failed", "AUDIO_NOT_FOUND")
    assert [event["event_type"] for event in document["events"]] == ["transcription.failed", "transcription.cost"]
    assert f"  {document['replay']}" in lost.stdout.splitlines()
    assert "job-l is short for job-lost" in lost.stderr
    assert (several.exit_code, unknown.exit_code) == (1, 1)
    assert "several jobs begin so: job-good, job-lost" in several.stderr
    assert "Ids like it: job-good" in unknown.stderr
    told = [*good.stdout.splitlines(), *lost.stdout.splitlines()]
    assert [each for each in told if len(each) > 80 and "gs://" not in each] == []
