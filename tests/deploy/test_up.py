"""One command from an empty project to a proven worker, on a stand-in for gcloud."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.deploy.project import GIB, IMAGES, QUOTAS, Project
from tests.support.deploy.scripts import BARE, DEPLOY, RUNBOOK

KEY = {"DEEPGRAM_API_KEY": "a-secret-key"}
STEPS = (
    "preflight: login, gcloud, project, billing",
    "preflight: what you may do",
    "preflight: the existing pool, image, key",
    "preflight: quotas",
    "preflight: the server's opinion of the pool",
    "preflight: what it costs",
    "provision",
    "Deepgram's key",
    "deploy, worker.ready, one sample job",
    "alerts and dashboard",
    "autoscaler",
    "done",
)
MOST_SECONDS_OF_A_REFUSAL = 10


def test_from_nothing_to_the_sample_jobs_event_with_every_step_and_its_time_and_then_nothing_is_left_to_do(
    tmp_path: Path,
) -> None:
    project = Project(tmp_path)

    said = project.done("up.sh", "staging", "--image", IMAGES[0], **KEY)
    made = project.state["kept"]
    calls = len(project.changes())
    again = project.done("up.sh", "staging")

    assert tuple(re.findall(r"^== +\d+ s  (.*)$", said, re.MULTILINE)) == STEPS
    assert re.search(r"sample job sample-\S+: completed: 398 words by parakeet on NVIDIA L4", said)
    assert "worker.ready" in said
    assert "# an instance: $0.905 an hour" in said
    assert "a-secret-key" not in said
    assert "https://console.cloud.google.com/monitoring/dashboards?project=klipstream" in said
    assert again.count("# nothing to do") == 4
    assert "# nothing was changed: staging is as deploy/ describes it" in again
    assert project.changes()[calls:] == []
    assert project.state["kept"] == made


def test_a_cut_off_run_goes_on_where_it_was(tmp_path: Path) -> None:
    project = Project(tmp_path, answers=None)
    command = [DEPLOY / "up.sh", "staging", "--image", IMAGES[0]]
    environment = {**BARE, **project.environment, **KEY, "POLL_SECONDS": "1", "SAMPLE_SECONDS": "60"}

    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        next(line for line in running.stdout if "topics publish" in line)
        os.killpg(running.pid, signal.SIGTERM)
        running.stdout.read()
        told = running.stderr.read()
    project.change(answers=Project.COMPLETED)
    said = project.done("up.sh", "staging", "--image", IMAGES[0])

    assert running.returncode == 130
    assert "stopped at: deploy, worker.ready, one sample job" in told
    assert "nothing to do: provisioned" in said
    assert not [name for name in project.state["kept"]["pubsub subscriptions"] if "sample" in name]
    assert project.instances("transcription-worker-staging") == 1


@pytest.mark.parametrize(
    ("wrong", "given", "said"),
    [
        ({"login": False}, {}, "no login, or one that has expired: gcloud auth login"),
        ({"version": "480.0.0"}, {}, "gcloud is version 480.0.0, 528 or newer is needed"),
        ({"billing": False}, {}, "project klipstream has no billing account: https://"),
        ({"lacks": ["pubsub.topics.create"]}, {}, "you lack pubsub.topics.create on project klipstream"),
        ({"quotas": {**QUOTAS, "CpuAllocPerProjectRegion": ["2000"]}}, {}, "CpuAllocPerProjectRegion=2000"),
        ({"quotas": {**QUOTAS, "MemAllocPerProjectRegion": [str(8 * GIB)]}}, {}, "MemAllocPerProjectRegion="),
        ({}, {"REGION": "europe-north1"}, "Cloud Run has no L4 in europe-north1"),
        ({}, {"DEEPGRAM_API_KEY": ""}, "the secret deepgram-api-key-staging has no version: set DEEPGRAM_API_KEY"),
        ({"images": []}, {}, "there is no image us-central1-docker.pkg.dev"),
        ({"refuses": "spec.template: no such field"}, {}, "INVALID_ARGUMENT: spec.template: no such field"),
    ],
    ids=lambda value: next(iter(value), "") if isinstance(value, dict) else "",
)
def test_a_failed_check_ends_at_once_with_one_line_and_nothing_is_changed(
    wrong: dict[str, Any], given: dict[str, str], said: str, tmp_path: Path
) -> None:
    project = Project(tmp_path, **wrong)
    began = time.monotonic()

    ended = project.run("up.sh", "staging", "--image", IMAGES[0], **{**KEY, **given})

    errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert ended.returncode == 1
    assert len(errors) == 1
    assert said in errors[0]
    assert project.changes() == []
    assert time.monotonic() - began < MOST_SECONDS_OF_A_REFUSAL


def test_the_gpu_quota_stops_a_roll_out_of_an_existing_pool(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.done("up.sh", "staging", "--image", IMAGES[0], **KEY)
    project.change(quotas={**QUOTAS, "NvidiaL4GpuAllocNoZonalRedundancyPerProjectRegion": ["1"]})

    line = project.run("up.sh", "staging", "--image", IMAGES[1]).stderr

    assert "let 1 instances of 4 vCPU and 16 GiB run" in line


def test_without_a_pool_an_image_has_to_be_named_or_built(tmp_path: Path) -> None:
    ended = Project(tmp_path).run("up.sh", "staging", **KEY)

    assert "there is no pool yet whose image could be kept: --build, or --image" in ended.stderr


def test_deleted_resources_are_created_again(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.done("up.sh", "staging", "--image", IMAGES[0], **KEY)
    state = project.state
    del state["kept"]["storage buckets"]["gs://klipstream-audio-staging"]
    project.change(kept=state["kept"])

    said = project.done("up.sh", "staging")

    assert "# missing: bucket klipstream-audio-staging" in said
    assert "gs://klipstream-audio-staging" in project.state["kept"]["storage buckets"]


def test_a_setting_of_the_shell_is_rolled_out_and_one_that_lives_in_the_pool_is_kept(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.done("up.sh", "staging", "--image", IMAGES[0], PARAKEET_ROLLOUT_PERCENT="10", **KEY)

    project.done("up.sh", "staging", MAX_PARKED="9")

    settings = project.settings()
    assert (settings["PARAKEET_ROLLOUT_PERCENT"], settings["MAX_PARKED"]) == ("10", "9")


def test_without_the_fallback_no_key_and_no_secret_are_needed(tmp_path: Path) -> None:
    project = Project(tmp_path)

    project.done("up.sh", "staging", "--image", IMAGES[0], ENABLE_FALLBACK="false")

    assert "secrets" not in project.state["kept"]
    assert "DEEPGRAM_API_KEY" not in project.settings()


def test_a_build_is_done_once_for_a_commit(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    for folder in ("deploy", "worker"):
        shutil.copytree(DEPLOY.parent / folder, checkout / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (checkout / ".gitignore").write_text("__pycache__/\n")
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=checkout, check=True)
    project = Project(tmp_path, images=[])

    first = project.done(str(checkout / "deploy" / "up.sh"), "staging", "--build", **KEY)
    again = project.done(str(checkout / "deploy" / "up.sh"), "staging", "--build")
    (checkout / "deploy" / "new").write_text("x")
    subprocess.run(["git", "add", "-A"], cwd=checkout, check=True)
    dirty = project.run(str(checkout / "deploy" / "up.sh"), "staging", "--build").stderr

    assert len([call for call in project.calls if call.startswith("gcloud builds submit")]) == 1
    assert "sample job" in first
    assert "was built before" in again
    assert "# nothing was changed" in again
    assert "there are changes that are not committed" in dirty


def test_status_shows_revisions_instances_drift_backlog_errors_and_cost(tmp_path: Path) -> None:
    project = Project(tmp_path, answers_to_queries="| completed | 12 |")
    project.done("deploy.sh", "staging", "--image", IMAGES[0], GPU_BATCH_SIZE="4")
    before = project.changes()

    said = project.done("status.sh", "staging")

    assert re.search(rf"transcription-worker-staging-00001-abc +100 % +yes +\S+ +{IMAGES[0]}", said)
    assert "asked for: 1 (at least 0, at most 1)" in said
    assert re.search(r"GPU_BATCH_SIZE +4 -> \(empty\)", said)
    assert "waiting or in progress: 3 jobs" in said
    assert "| completed | 12 |" in said
    assert project.changes() == before


def test_status_goes_on_where_one_part_cannot_be_read(tmp_path: Path) -> None:
    project = Project(tmp_path, faults={"bq query": [1, "ERROR: no access to the table"]})
    project.done("deploy.sh", "staging", "--image", IMAGES[0])

    said = project.done("status.sh", "staging")

    assert "cannot be read: no access to the table" in said
    assert "waiting or in progress" in said


def test_status_of_an_empty_project_says_what_makes_one(tmp_path: Path) -> None:
    assert "deploy/up.sh staging makes one" in Project(tmp_path).done("status.sh", "staging")


def test_the_log_is_read_with_one_filter_of_this_pool(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.done("deploy.sh", "staging", "--image", IMAGES[0])

    said = project.done("logs.sh", "staging", 'jsonPayload.event="worker.ready"', "--since", "6h")

    assert "worker.ready" in said
    (asked,) = [call for call in project.calls if "logging read" in call and "--freshness=6h" in call]
    assert 'worker_pool_name="transcription-worker-staging" AND (jsonPayload.event="worker.ready")' in asked


def test_a_new_operator_needs_four_commands_after_the_clone_and_the_second_brings_the_first_transcript(
    tmp_path: Path,
) -> None:
    page = RUNBOOK.read_text().split("## Deploy for the first time\n")[1].split("\n## ")[0]
    block = re.search(r"(?:^ {4}.*\n)+", page, re.MULTILINE)
    assert block is not None
    commands = [line.strip().split("  #")[0].strip() for line in block[0].splitlines()]

    project = Project(tmp_path)
    second = (
        commands[1].replace("DEEPGRAM_API_KEY=...", "DEEPGRAM_API_KEY=key").replace("--build", f"--image {IMAGES[0]}")
    )
    done = subprocess.run(
        ["bash", "-euc", second],
        env={**BARE, **project.environment},
        cwd=DEPLOY.parent,
        capture_output=True,
        text=True,
        check=False,
    )

    assert len(commands) == 4
    assert commands[0] == "gcloud auth login"
    assert done.returncode == 0, done.stderr
    assert "completed: 398 words by parakeet" in done.stdout
    assert project.state["kept"]["monitoring channels"] != {}
