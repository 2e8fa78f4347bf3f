"""The pipeline's transcription call on the worker: `transcribe(audio_file_path, video_id, output_dir=None)`.

    try:
        files = transcribe(audio_path, video_id, output_dir)
    except Exception:           # the worker is down, too slow, or failed: today's path takes over
        files = deepgram_transcribe(audio_path, video_id, output_dir)

Or from a shell: `python examples/klipstream.py AUDIO VIDEO_ID [OUTPUT_DIR]`.

It needs Python 3.10 on, `klipstream-worker` (the base install) and `google-cloud-storage`, and these variables:

    PROJECT_ID                   project of the topics
    AUDIO_BUCKET                 bucket the audio is uploaded to; the worker's INPUT_BUCKETS must hold it
    JOBS_TOPIC                   transcription-jobs by default
    COMPLETION_TOPIC             transcription-completions by default
    PIPELINE_SUBSCRIPTION        a subscription on COMPLETION_TOPIC that this process alone reads. Unset: one is made
                                 for each call and removed after it, which needs roles/pubsub.editor
    TRANSCRIPTION_TIMEOUT        seconds to wait for the worker, 1800 by default

`STORAGE_EMULATOR_HOST` and `PUBSUB_EMULATOR_HOST` are honoured, as `klipstream-worker emulators` prints them.

Calling it again with the same audio costs nothing: the audio's checksum is part of the job id, so that the worker
answers with what it has. That holds for a failure too, until an operator replays the job.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from google.api_core.exceptions import PreconditionFailed
from google.cloud import storage

from schemas.events import CompletedEvent, FailedEvent, StoredArtefact
from schemas.job import TranscriptionJob
from schemas.uris import GcsUri
from worker.client import own_subscription, submit, wait_for

TRANSFER_SECONDS = 300


class TranscriptionFailed(Exception):
    """The worker gave up on the job; `code` and `suggested_action` say why and what to do."""

    def __init__(self, event: FailedEvent) -> None:
        self.code, self.suggested_action = str(event.error.error_code), event.error.suggested_action
        super().__init__(f"{self.code}: {event.error.error_message}")


def transcribe(
    audio_file_path: str | os.PathLike[str], video_id: str, output_dir: str | os.PathLike[str] | None = None
) -> dict[str, Any]:
    """Transcribe an audio file on the worker and leave the artefacts in `output_dir`, by default beside the audio.

    Returns `words_file`, `paragraphs_file` and `transcript_json_file` as `pathlib.Path`, and `transcription_metadata`.
    Raises `TranscriptionFailed`, `TimeoutError`, or what Google's clients raise; nothing half-written is left then.
    """
    audio = Path(audio_file_path)
    folder = audio.parent if output_dir is None else Path(output_dir)
    client = storage.Client(project=os.environ["PROJECT_ID"])
    job = _job(audio, video_id)
    _upload(client, audio, job.audio)
    event = _run(job)
    if isinstance(event, FailedEvent):
        raise TranscriptionFailed(event)
    return _fetch(client, event, folder)


def _job(audio: Path, video_id: str) -> TranscriptionJob:
    digest = _digest(audio)
    audio_uri = f"gs://{os.environ['AUDIO_BUCKET']}/{video_id}/{digest}{audio.suffix}"
    return TranscriptionJob(job_id=f"{video_id}-{digest}", video_id=video_id, audio_uri=audio_uri)


def _digest(path: Path) -> str:
    checksum = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            checksum.update(block)
    return checksum.hexdigest()[:12]


def _upload(client: storage.Client, audio: Path, uri: GcsUri) -> None:
    blob = client.bucket(uri.bucket).blob(uri.name)
    with suppress(PreconditionFailed):  # it is there already: the name holds the checksum
        blob.upload_from_filename(audio, if_generation_match=0, timeout=TRANSFER_SECONDS)


def _run(job: TranscriptionJob) -> CompletedEvent | FailedEvent:
    project_id = os.environ["PROJECT_ID"]
    timeout_seconds = float(os.environ.get("TRANSCRIPTION_TIMEOUT", "1800"))
    with _subscription(project_id, job.video_id) as subscription:
        submit(job, project_id=project_id, topic=os.environ.get("JOBS_TOPIC", "transcription-jobs"))
        return wait_for(job, project_id=project_id, subscription=subscription, timeout_seconds=timeout_seconds)


@contextmanager
def _subscription(project_id: str, video_id: str) -> Iterator[str]:
    permanent = os.environ.get("PIPELINE_SUBSCRIPTION")
    if permanent:
        yield permanent
        return
    topic = os.environ.get("COMPLETION_TOPIC", "transcription-completions")
    with own_subscription(project_id=project_id, topic=topic, video_id=video_id) as subscription:
        yield subscription


def _fetch(client: storage.Client, event: CompletedEvent, folder: Path) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    metadata = event.transcription_metadata.model_dump(mode="json")
    return {
        "words_file": _download(client, event.artefacts.words, folder),
        "paragraphs_file": _download(client, event.artefacts.paragraphs, folder),
        "transcript_json_file": _download(client, event.artefacts.transcript, folder),
        "transcription_metadata": {**metadata, "flags": event.flags.model_dump()},
    }


def _download(client: storage.Client, artefact: StoredArtefact, folder: Path) -> Path:
    uri = GcsUri.parse(artefact.uri)
    path = folder / Path(uri.name).name
    partial = path.with_suffix(path.suffix + ".part")
    blob = client.bucket(uri.bucket).blob(uri.name, generation=artefact.generation)
    try:
        blob.download_to_filename(partial, timeout=TRANSFER_SECONDS)  # verifies the checksum
        return partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def main() -> None:
    """Run the command line: print the paths of the files, and the metadata."""
    if len(sys.argv) not in (3, 4):
        sys.exit("usage: python examples/klipstream.py AUDIO VIDEO_ID [OUTPUT_DIR]")
    try:
        files = transcribe(*sys.argv[1:4])
    except (TranscriptionFailed, TimeoutError) as exc:
        sys.exit(f"not transcribed: {exc}")
    print(json.dumps(files, indent=2, default=str))


if __name__ == "__main__":
    main()
