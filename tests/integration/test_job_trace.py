"""One job of a worker process, and its trace read back from the OTLP file that the worker wrote."""

import json
import signal
from pathlib import Path
from typing import Any

from tests.support.audio.media import riff_wav
from tests.support.jobs.harness import speech
from tests.support.queues.pubsub_server import connected, let_it_pass
from tests.support.workers.cloud import Cloud
from worker.embedded.local_cloud import COMPLETION_SUBSCRIPTION
from worker.telemetry.register import STAGES

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PUBLISHER = f"00-{TRACE_ID}-00f067aa0ba902b7-01"
# Of a job that goes well at the first try, without holes and without Deepgram.
EXPECTED = {"job", *STAGES} - {"parakeet_other_cuts", "parakeet_gaps", "deepgram", "deepgram_gaps"}


def spans_in(file: Path) -> list[dict[str, Any]]:
    batches = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    return [
        span
        for batch in batches
        for resource in batch["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]


async def test_a_trace_shows_all_stages_of_a_job_under_the_publishers_trace_id(cloud: Cloud) -> None:
    file = cloud.folder / "traces.jsonl"
    environment = {"TRACES_EXPORTER": "file", "TRACES_FILE": str(file), "PARAKEET_MODEL_NAME": "null:200x"}
    with cloud.process(**environment) as worker:
        async with cloud.pipeline() as pipeline:
            uri = await pipeline.upload(riff_wav(speech(30).astype("<i2").tobytes()))
            job = {"job_id": "job-1", "video_id": "v1", "audio_uri": uri}
            await pipeline.publish(json.dumps(job).encode(), googclient_traceparent=PUBLISHER)
            worker.wait_for("delivery.settled", outcome="ack")
        worker.send(signal.SIGTERM)
        worker.wait(10)
        async with connected(cloud.local.pubsub_target, let_it_pass) as server:
            server.project = cloud.project
            events = await server.pull_now(server.name("subscriptions", COMPLETION_SUBSCRIPTION))

    spans = spans_in(file)
    of_the_job = [span for span in spans if span["traceId"] == TRACE_ID]
    (root,) = (span for span in of_the_job if span["name"] == "job")
    ids = {span["spanId"] for span in of_the_job}
    assert {span["name"] for span in of_the_job} == EXPECTED
    assert root["parentSpanId"] == PUBLISHER.split("-")[2]
    assert all(span["parentSpanId"] in ids for span in of_the_job if span is not root)
    assert {event.message.attributes["traceparent"].split("-")[1] for event in events} == {TRACE_ID}
    (done,) = worker.logged("job.done")
    assert done["logging.googleapis.com/trace"] == f"projects/{cloud.project}/traces/{TRACE_ID}"
