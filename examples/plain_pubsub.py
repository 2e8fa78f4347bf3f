"""The worker from any Python program: google-cloud-pubsub and json, nothing of ours.

    python examples/plain_pubsub.py submit gs://bucket/audio.mp3 VIDEO_ID     prints the job id
    python examples/plain_pubsub.py watch [JOB_ID]                            prints events, until that job has ended

Environment: PROJECT_ID, JOBS_TOPIC, COMPLETION_SUBSCRIPTION, and for local servers PUBSUB_EMULATOR_HOST. Only one
program should read a completion subscription: Pub/Sub hands each event to one of its readers.
"""

import json
import os
import sys
import uuid

from google import pubsub_v1
from google.api_core.exceptions import DeadlineExceeded

ENDED = {"transcription.completed", "transcription.failed"}


def submit(audio_uri: str, video_id: str) -> str:
    """Publish a job and return its id."""
    job = {"job_id": f"{video_id}-{uuid.uuid4().hex[:8]}", "video_id": video_id, "audio_uri": audio_uri}
    topic = f"projects/{os.environ['PROJECT_ID']}/topics/{os.environ['JOBS_TOPIC']}"
    with pubsub_v1.PublisherClient() as publisher:
        publisher.publish(topic=topic, messages=[{"data": json.dumps(job).encode()}])
    return job["job_id"]


def watch(job_id: str | None = None) -> None:
    """Print each event once; return when the job has ended."""
    path = f"projects/{os.environ['PROJECT_ID']}/subscriptions/{os.environ['COMPLETION_SUBSCRIPTION']}"
    seen = set()
    with pubsub_v1.SubscriberClient() as subscriber:
        while True:
            try:
                answer = subscriber.pull(subscription=path, max_messages=10, timeout=60)
            except DeadlineExceeded:  # nothing came
                continue
            for received in answer.received_messages:
                is_end = False
                if "event_type" in received.message.attributes:  # others are not the worker's
                    event = json.loads(received.message.data)
                    if event["event_id"] not in seen:  # Pub/Sub delivers at least once
                        seen.add(event["event_id"])
                        print(json.dumps(event), flush=True)
                    is_end = event["job"]["job_id"] == job_id and event["event_type"] in ENDED
                subscriber.acknowledge(subscription=path, ack_ids=[received.ack_id])
                if is_end:
                    return


def main() -> None:
    """Run the command line."""
    match sys.argv[1:]:
        case ["submit", audio_uri, video_id]:
            print(submit(audio_uri, video_id))
        case ["watch", *job_ids] if len(job_ids) <= 1:
            watch(*job_ids)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
