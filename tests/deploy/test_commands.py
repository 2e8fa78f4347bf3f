"""Every command that the scripts print, held to the commands and flags of the gcloud that is installed."""

import os
import re
import runpy
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.deploy.project import IMAGES, Project
from tests.support.deploy.scripts import BARE, IMAGE, RUNBOOK, dry_run

RUNS = [
    ("up.sh", "--image", IMAGE),
    ("provision.sh",),
    ("deploy.sh", "--image", IMAGE),
    ("deploy.sh", "--promote"),
    ("rollback.sh",),
    ("rollback.sh", "--to-deepgram"),
    ("relaunch.sh", "GPU_BATCH_SIZE=4"),
    ("autoscale.sh",),
    ("starter.sh",),
    ("monitor.sh",),
    ("destroy.sh", "--with-data"),
]
EVERYTHING = {
    "ALERT_EMAIL": "on-call@x.org",
    "BILLING_ACCOUNT": "0-0-0",
    "PIPELINE_MEMBER": "user:p@x.org",
    "OPERATORS_MEMBER": "group:o@x.org",
}
# Documented, and newer than gcloud 528, the oldest one that this was tried with.
NEWER = {"gcloud beta run worker-pools add-iam-policy-binding"}


@pytest.fixture(scope="module")
def tree() -> dict[str, Any]:
    """Return gcloud's completions of a command line: its commands and their flags."""
    if shutil.which("gcloud") is None:
        if os.environ.get("CI_REQUIRE_EMULATOR"):
            pytest.fail("gcloud is required")
        pytest.skip("gcloud is not installed")
    root = subprocess.run(
        ["gcloud", "info", "--format=value(installation.sdk_root)"], capture_output=True, text=True, check=True
    ).stdout.strip()
    return runpy.run_path(str(Path(root, "data", "cli", "gcloud_completions.py")))["STATIC_COMPLETION_CLI_TREE"]


def unknown_flags(words: list[str], tree: dict[str, Any]) -> list[str]:
    """The flags of a gcloud command that gcloud does not know; all of it where the command itself is unknown."""
    node, known = tree, set(tree["flags"])
    for index, word in enumerate(words[1:], start=1):
        if not node.get("commands"):
            break
        if word not in node["commands"]:
            return [] if " ".join(words[: index + 1]) in NEWER else [" ".join(words[: index + 1])]
        node = node["commands"][word]
        known |= set(node.get("flags", {}))
    flags = {word.split("=")[0] for word in words if word.startswith("--")}
    return sorted(flags - known - {flag.replace("--", "--no-", 1) for flag in known})


@pytest.mark.parametrize("run", RUNS, ids=" ".join)
def test_gcloud_knows_every_command_and_flag(run: tuple[str, ...], tree: dict[str, Any]) -> None:
    name, *options = run

    commands = [words for words in dry_run(name, "production", *options, **EVERYTHING) if words[0] == "gcloud"]

    assert commands != []
    assert [(words, unknown) for words in commands if (unknown := unknown_flags(words, tree))] == []


@pytest.mark.parametrize("run", RUNS, ids=" ".join)
def test_what_a_dry_run_prints_can_be_pasted_and_run(run: tuple[str, ...], tmp_path: Path) -> None:
    name, *options = run
    standing = (
        project_that_stands(tmp_path)
        if name in {"rollback.sh", "relaunch.sh", "destroy.sh", "starter.sh"} or "--promote" in run
        else Project(tmp_path)
    )
    if name == "destroy.sh":
        standing.done("starter.sh", "production", **EVERYTHING)
    printed = standing.done(name, "production", *options, "--dry-run", **EVERYTHING)

    pasted = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", printed],
        env={**BARE, **standing.environment, "DEEPGRAM_API_KEY": "key"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert pasted.returncode == 0, pasted.stderr
    assert standing.changes() != []


def project_that_stands(folder: Path) -> Project:
    """A project in which everything was made, and two images were deployed."""
    project = Project(folder)
    for name in ("provision.sh", "monitor.sh", "autoscale.sh"):
        project.done(name, "production", **EVERYTHING)
    for image in IMAGES[:2]:
        project.done("deploy.sh", "production", "--image", image)
    return project


def test_gcloud_knows_every_command_of_the_runbook(tree: dict[str, Any]) -> None:
    text = RUNBOOK.read_text().replace("\\\n", " ")
    lines = re.findall(r"^ {4}(gcloud [^#\n]*)", text, re.MULTILINE)

    commands = [shlex.split(line.replace("$(", "(").replace("(", "").replace(")", "")) for line in lines]

    assert len(commands) > 4
    assert [(words, unknown) for words in commands if (unknown := unknown_flags(words, tree))] == []


def test_a_flag_that_gcloud_does_not_know_is_noticed(tree: dict[str, Any]) -> None:
    words = ["gcloud", "pubsub", "topics", "create", "a-topic", "--labels=a=b", "--retention=7d"]

    assert unknown_flags(words, tree) == ["--retention"]
    assert unknown_flags(["gcloud", "pubsub", "queues", "create"], tree) == ["gcloud pubsub queues"]
