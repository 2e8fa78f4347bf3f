"""The operator's commands of the documents, run as they are written, on development servers with a real dead letter."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

from tests.support.workers.cloud import Cloud

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "operate" / "dead-letters.md"


def lines_of(page: Path, beginning: str) -> list[str]:
    """Return the command lines of a page that begin so, without their comments."""
    lines = (line.strip().split("  #")[0].strip() for line in page.read_text().splitlines() if line.startswith("    "))
    return [line for line in lines if line.startswith(beginning)]


def run(cloud: Cloud, folder: Path, command: str) -> "subprocess.CompletedProcess[str]":
    """Run a command line of `klipstream-worker` in the folder."""
    return subprocess.run(
        [sys.executable, "-m", "worker", *shlex.split(command)[1:]],
        cwd=folder,
        env={**os.environ, **cloud.environment, "PYTHONPATH": str(ROOT), "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=False,
    )


async def test_the_commands_of_the_dead_letter_page_work_in_their_order(cloud: Cloud, tmp_path: Path) -> None:
    with cloud.process(PARAKEET_MODEL_NAME="null") as worker:
        worker.wait_ready()
        async with cloud.pipeline() as pipeline:
            await pipeline.submit("gs://local-audio/missing.mp3", job_id="job-lost")
            worker.wait_for("delivery.settled", 1)
    listed = run(cloud, tmp_path, "klipstream-worker dlq list --json")
    (dead_letter_id,) = (json.loads(line)["dead_letter_id"][:8] for line in listed.stdout.splitlines())

    results = {
        command: run(cloud, tmp_path, command.replace(" ID", f" {dead_letter_id}"))
        for command in lines_of(PAGE, "klipstream-worker dlq")
    }

    failed = {command: done.stderr or done.stdout for command, done in results.items() if done.returncode}
    assert len(results) == 7
    assert failed == {}
    assert "AUDIO_NOT_FOUND" in results["klipstream-worker dlq list"].stdout
