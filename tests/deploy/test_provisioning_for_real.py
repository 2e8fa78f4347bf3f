"""provision.sh with real gcloud on the official Pub/Sub emulator and fake-gcs-server, then a worker on the result.

Those servers know topics, subscriptions and buckets; the other parts are checked as printed commands.
"""

import json
import os
import subprocess
import sys
import threading
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.deploy.scripts import DEPLOY, commands, rendered, script
from tests.support.workers.worker_process import WorkerProcess
from worker.embedded.gcs import EmbeddedGcs

pytestmark = [pytest.mark.emulator, pytest.mark.timeout(600)]

DAY = 24 * 3600
DEAD_LETTERS = "transcription-dead-letters-staging"
SUBSCRIPTIONS = {
    "transcription-jobs-worker-staging": "transcription-jobs-staging",
    "transcription-completions-pipeline-staging": "transcription-completions-staging",
    DEAD_LETTERS: DEAD_LETTERS,
}


def asked(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url) as answer:  # noqa: S310 - a server of ours
        return json.load(answer)


@dataclass(frozen=True, kw_only=True)
class Project:
    """An empty project on servers of this machine, and what provisioning it twice printed."""

    name: str
    pubsub: str
    storage: str
    printed: tuple[str, str]

    def standing(self, collection: str) -> list[dict[str, Any]]:
        """Every topic or subscription of the project, as the server describes it."""
        return asked(f"http://{self.pubsub}/v1/projects/{self.name}/{collection}").get(collection, [])

    def short(self, path: str) -> str:
        """A topic or subscription without its project, which it must be in."""
        head, name = path.rsplit("/", 1)
        assert head.startswith(f"projects/{self.name}/")
        return name


@contextmanager
def projects_api() -> Iterator[str]:
    """Answers as the Resource Manager does for any project, and nothing else."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"projectId": self.path.split("?")[0].rsplit("/", 1)[-1], "projectNumber": "1"}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(scope="module")
def project(official_emulator: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("provisioned")
    (folder / "token").write_text("any")
    with EmbeddedGcs(folder / "gcs") as storage, projects_api() as projects:
        name = f"test-{uuid.uuid4().hex[:12]}"
        environment = {
            "HOME": str(folder),
            "PROJECT_ID": name,
            "CLOUDSDK_CONFIG": str(folder / "gcloud"),
            "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE": str(folder / "token"),
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDRESOURCEMANAGER": f"{projects}/",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_PUBSUB": f"http://{official_emulator}/",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE": f"{storage.url}/storage/v1/",
        }
        runs = [script("provision.sh", "staging", "--only", "pubsub,buckets", **environment) for _ in range(2)]
        assert [run.returncode for run in runs] == [0, 0], "\n".join(run.stderr for run in runs)
        printed = (runs[0].stdout, runs[1].stdout)
        yield Project(name=name, pubsub=official_emulator, storage=storage.url, printed=printed)


def test_the_second_run_makes_nothing(project: Project) -> None:
    first, second = ([words[3] for words in commands(printed)] for printed in project.printed)

    assert first == ["create"] * 10
    assert second == ["update"] * 6


def test_the_topics_are_those_of_the_specification(project: Project) -> None:
    topics = {project.short(topic["name"]): topic for topic in project.standing("topics")}

    assert set(topics) == set(SUBSCRIPTIONS.values())
    assert topics[DEAD_LETTERS]["messageRetentionDuration"] == f"{31 * DAY}s"
    for topic in topics.values():
        assert topic["labels"] == {"app": "klipstream-transcription", "environment": "staging"}


def test_the_subscriptions_are_those_of_the_specification(project: Project) -> None:
    standing = {project.short(one["name"]): one for one in project.standing("subscriptions")}

    assert {name: project.short(one["topic"]) for name, one in standing.items()} == SUBSCRIPTIONS
    backoff = {"minimumBackoff": "10s", "maximumBackoff": "600s"}
    for name, one in standing.items():
        assert one["ackDeadlineSeconds"] == 60
        assert one.get("retryPolicy") == (None if name == DEAD_LETTERS else backoff)
        assert one["messageRetentionDuration"] == f"{7 * DAY}s"
        assert one["expirationPolicy"] == {}
    policies = {name: one["deadLetterPolicy"] for name, one in standing.items() if "deadLetterPolicy" in one}
    forwarding = {
        "deadLetterTopic": f"projects/{project.name}/topics/{DEAD_LETTERS}",
        "maxDeliveryAttempts": 100,
    }
    assert policies == {"transcription-jobs-worker-staging": forwarding}


def test_the_buckets_are_those_of_the_specification(project: Project) -> None:
    buckets = asked(f"{project.storage}/storage/v1/b?project={project.name}")["items"]

    wanted = {f"{project.name}-{kind}-staging" for kind in ("audio", "transcripts", "worker-state")}
    assert {bucket["name"] for bucket in buckets} == wanted | {f"{project.name}_cloudbuild"}
    assert {bucket["location"].lower() for bucket in buckets} == {"us-central1"}


def test_a_worker_with_the_pools_settings_completes_a_job_there(project: Project, tmp_path: Path) -> None:
    pool = yaml.safe_load(rendered("staging", PROJECT_ID=project.name))
    entries = pool["spec"]["template"]["spec"]["containers"][0]["env"]
    given = {entry["name"]: entry["value"] for entry in entries if "value" in entry}
    here = {
        "PUBSUB_EMULATOR_HOST": project.pubsub,
        "STORAGE_EMULATOR_HOST": project.storage,
        "PARAKEET_MODEL_NAME": "null",
        "PARAKEET_DEVICE": "cpu",
        "HEALTH_PORT": "0",
        "METRICS_EXPORTER": "none",
        "TRACES_EXPORTER": "none",
        "TEMP_DIR": str(tmp_path),
    }
    pipeline = {
        "AUDIO_BUCKET": f"{project.name}-audio-staging",
        "COMPLETION_SUBSCRIPTION": "transcription-completions-pipeline-staging",
    }

    with WorkerProcess(tmp_path / "worker.log", {**given, **here}) as worker:
        worker.wait_ready()
        job = [sys.executable, "-W", "ignore::FutureWarning", DEPLOY / "smoke_job.py"]
        environment = {**os.environ, **given, **here, **pipeline, "PYTHONPATH": str(DEPLOY.parent)}
        done = subprocess.run(job, env=environment, capture_output=True, text=True, timeout=120, check=False)

    assert done.returncode == 0, done.stderr
    assert "# completed smoke-" in done.stdout
