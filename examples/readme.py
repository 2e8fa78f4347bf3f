"""README's example: upload audio, submit a job, wait for its end. A test keeps it and the README equal."""

import os
import uuid
from importlib.resources import files
from pathlib import Path

from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from worker.client import own_subscription, submit, wait_for

project = os.environ["PROJECT_ID"]
audio = Path(str(files("worker.embedded"))) / "data" / "two-voices.opus"

# Anonymous, because this talks to the development server; leave it out for the real Cloud Storage.
bucket = storage.Client(project=project, credentials=AnonymousCredentials()).bucket(os.environ["AUDIO_BUCKET"])
bucket.blob(audio.name).upload_from_filename(audio)

job = {
    "job_id": f"readme-{uuid.uuid4().hex[:8]}",
    "video_id": "2301234567",
    "audio_uri": f"gs://{bucket.name}/{audio.name}",
}
with own_subscription(project_id=project, topic=os.environ["COMPLETION_TOPIC"]) as subscription:
    submit(job, project_id=project, topic=os.environ["JOBS_TOPIC"])
    event = wait_for(job, project_id=project, subscription=subscription, timeout_seconds=600)

print(event.event_type.value, event.artefacts.words.uri, event.artefacts.paragraphs.uri)
