"""The commands that the README gives a newcomer: `emulators` and `run` in two terminals, the examples in a third."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from tests.support.wait import wait_until

ROOT = Path(__file__).parents[2]
PYTHON = os.environ.get("PIPELINE_PYTHON", sys.executable)
SAMPLE = ROOT / "worker" / "embedded" / "data" / "two-voices.opus"
START_SECONDS = 90.0

pytestmark = [pytest.mark.model, pytest.mark.timeout(300)]


@contextmanager
def terminal(log: Path, *command: str, **environment: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A command of ours in the foreground of another terminal, until Ctrl-C."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "worker", *command],
            env={**os.environ, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)


def exports_in(log: Path) -> dict[str, str]:
    """Return the exports that `emulators` prints."""
    lines = log.read_text().splitlines()
    return dict(line.removeprefix("export ").split("=", 1) for line in lines if line.startswith("export "))


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """The environment of a third terminal, with a worker that is ready in the second."""
    folder = tmp_path_factory.mktemp("terminals")
    servers, worker = folder / "emulators.log", folder / "run.log"
    ports = ("--pubsub-port", "0", "--storage-port", "0")
    with terminal(servers, "emulators", "--root", str(folder / "gcs"), *ports):
        wait_until(lambda: "serving until Ctrl-C" in servers.read_text(), START_SECONDS)
        exports = exports_in(servers)
        with terminal(worker, "run", **exports, HEALTH_PORT="0"):
            wait_until(lambda: "worker.ready" in worker.read_text(), START_SECONDS)
            yield {**os.environ, **exports, "PYTHONPATH": str(ROOT)}


def run_example(shell: Mapping[str, str], name: str, *arguments: str) -> str:
    command = [PYTHON, "-W", "ignore::FutureWarning", str(ROOT / "examples" / name), *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=200, env=dict(shell))
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readmes_example_ends_with_a_completed_job(shell: Mapping[str, str]) -> None:
    printed = run_example(shell, "readme.py")

    assert printed.startswith("transcription.completed gs://local-transcripts/2301234567/audio_2301234567_words.csv")


def test_the_pipelines_call_leaves_its_files(shell: Mapping[str, str], tmp_path: Path) -> None:
    run_example(shell, "klipstream.py", str(SAMPLE), "vod7", str(tmp_path))

    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "audio_vod7_paragraphs.csv",
        "audio_vod7_transcript.json",
        "audio_vod7_words.csv",
    ]


def test_plain_pubsub_will_do(shell: Mapping[str, str]) -> None:
    server = {"api_endpoint": shell["STORAGE_EMULATOR_HOST"]}
    buckets = storage.Client(shell["PROJECT_ID"], AnonymousCredentials(), client_options=server)
    buckets.bucket("local-audio").blob(SAMPLE.name).upload_from_filename(SAMPLE)

    job_id = run_example(shell, "plain_pubsub.py", "submit", f"gs://local-audio/{SAMPLE.name}", "vod8").strip()

    printed = run_example(shell, "plain_pubsub.py", "watch", job_id)

    assert "transcription.completed" in printed
