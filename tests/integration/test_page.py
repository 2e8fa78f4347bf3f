"""The page of a real worker, and of `klipstream-worker page` beside it."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.audio.media import riff_wav
from tests.support.jobs.harness import speech
from tests.support.wait import wait_until
from tests.support.workers.cloud import Cloud
from tests.support.workers.pages import ask
from tests.support.workers.worker_process import WorkerProcess

ENDED = ("job-good", "job-lost")


async def two_jobs(cloud: Cloud, worker: WorkerProcess) -> str:
    """Let the worker complete one job and fail another; return its address."""
    worker.wait_ready()
    (listening,) = worker.logged("health.listening")
    async with cloud.pipeline() as pipeline:
        uri = await pipeline.upload(riff_wav(speech(20).astype("<i2").tobytes()))
        await pipeline.submit(uri, job_id="job-good")
        await pipeline.submit("gs://local-audio/missing.mp3", job_id="job-lost")
        worker.wait_for("delivery.settled", 2)
    return str(listening["url"])


@contextmanager
def page_command(folder: Path, cloud: Cloud, *words: str) -> Iterator[str]:
    """Run `klipstream-worker page` until Ctrl-C, and yield its address."""
    log = folder / "page.log"
    command = [sys.executable, "-m", "worker", "page", *words, "--port", "0", "--no-browser"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env={**os.environ, **cloud.environment}, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        wait_until(lambda: "Ctrl-C" in log.read_text() or process.poll() is not None, 30)
        yield log.read_text().split()[1]
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


async def test_the_page_of_a_worker_and_of_a_fleet_have_its_jobs_failures_and_costs(
    cloud: Cloud, tmp_path: Path
) -> None:
    with cloud.process(PARAKEET_MODEL_NAME="null") as worker:
        url = await two_jobs(cloud, worker)
        with page_command(tmp_path, cloud, url) as fleet:
            for address in (url, fleet):
                wait_until(lambda address=address: all(job in ask(address + "/").text for job in ENDED))  # type: ignore[misc]
                page = ask(f"{address}/").text
                good, lost = ask(f"{address}/jobs/job-good").text, ask(f"{address}/jobs/job-lost").text

                assert "klipstream-worker dlq replay --code AUDIO_NOT_FOUND --execute" in page
                assert 'aria-label="Costs by day"' in page
                assert "Completed" in good
                assert "Artefacts written" in good
                assert "Failed: AUDIO_NOT_FOUND." in lost


async def test_a_port_that_others_reach_shows_no_more_than_the_health_document(cloud: Cloud) -> None:
    with cloud.process(PARAKEET_MODEL_NAME="null", HEALTH_HOST="0.0.0.0") as worker:  # noqa: S104 - the point of the test
        url = (await two_jobs(cloud, worker)).replace("0.0.0.0", "127.0.0.1")  # noqa: S104 - the same
        wait_until(lambda: "Failed" in ask(f"{url}/jobs/job-lost").text)  # it is on the page while it runs, too
        page = ask(f"{url}/").text
        lost = ask(f"{url}/jobs/job-lost")

    assert "dlq replay" not in page
    assert 'id="costs"' not in page
    assert lost.status == 200
    assert "Failed: AUDIO_NOT_FOUND." in lost.text
    assert "missing.mp3" not in lost.text


@pytest.mark.parametrize("words", [("page",), ("dev", "--root", "{folder}")])
def test_a_taken_port_is_named_in_one_line(tmp_path: Path, words: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [word.format(folder=tmp_path) for word in words]
        ports = ["--pubsub-port", "0", "--storage-port", "0"] if words[0] == "dev" else []
        done = subprocess.run(
            [sys.executable, "-m", "worker", *command, *ports, "--port", port],
            env={**os.environ, "HEALTH_PORT": "0", "STATE_BUCKET": "some-state"},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    assert done.returncode == 1
    assert f"port {port} on 127.0.0.1: Address already in use" in done.stderr
    assert "Traceback" not in done.stderr
