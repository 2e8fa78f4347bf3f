"""Rolling back, promoting and relaunching where something is gone, or where the command cannot be meant."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.deploy.project import IMAGES, Project
from tests.support.deploy.scripts import script

POOL = "transcription-worker-staging"


def gone(project: Project, index: int) -> None:
    """A revision is deleted."""
    state = project.state
    del state["revisions"][index]
    project.change(revisions=state["revisions"])


@pytest.fixture(scope="module")
def deployed_thrice(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The state of a project after three deployments."""
    project = Project(tmp_path_factory.mktemp("three"))
    for image in IMAGES[:3]:
        project.done("deploy.sh", "staging", "--image", image)
    return project.state


@pytest.fixture
def three(deployed_thrice: dict[str, Any], tmp_path: Path) -> Project:
    """A project whose pool had three revisions, the last of which serves."""
    return Project(tmp_path, **deployed_thrice)


def test_a_rollback_passes_over_a_revision_that_is_gone(three: Project) -> None:
    gone(three, 1)

    three.done("rollback.sh", "staging")

    assert three.shares(POOL) == {"1": 100}


@pytest.mark.parametrize("name", [f"{POOL}-00002-abc", "transcription-worker-00001-abc", "nonsense"])
def test_a_rollback_to_a_revision_that_the_pool_does_not_have_changes_nothing(name: str, three: Project) -> None:
    gone(three, 1)
    before = three.changes()

    line = three.refused("rollback.sh", "staging", name)

    assert f"the pool has no revision '{name}': deploy/rollback.sh staging --list shows those that there are" in line
    assert three.changes() == before


def test_where_the_revision_that_served_is_gone_every_command_says_so_or_works(three: Project) -> None:
    gone(three, 2)

    assert "name one, or --to-deepgram" in three.refused("rollback.sh", "staging")
    assert "the revision that served is gone" in three.refused(
        "deploy.sh", "staging", "--image", IMAGES[3], "--canary", "50", "--instances", "2", MAX_INSTANCES="2"
    )
    three.done("status.sh", "staging")
    three.done("rollback.sh", "staging", f"{POOL}-00001-abc")
    assert three.shares(POOL) == {"1": 100}


def test_a_rollback_to_an_image_that_the_registry_dropped_warns_and_goes_on(three: Project) -> None:
    three.change(images=[IMAGES[2]])

    ended = three.run("rollback.sh", "staging")

    assert ended.returncode == 0
    assert f"# WARNING: {IMAGES[1]} is not found in the registry" in ended.stderr


@pytest.mark.parametrize("rolled_back", [False, True])
def test_promoting_without_a_canary_changes_nothing(rolled_back: bool, three: Project) -> None:
    if rolled_back:
        three.done("rollback.sh", "staging")
    before = three.changes()

    assert "no canary runs" in three.refused("deploy.sh", "staging", "--promote")
    assert three.changes() == before


def test_a_canary_is_promoted(three: Project) -> None:
    three.done("deploy.sh", "staging", "--image", IMAGES[3], "--canary", "50", "--instances", "2", MAX_INSTANCES="2")

    three.done("deploy.sh", "staging", "--promote")

    assert three.shares(POOL) == {"4": 100}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("PARAKEET_ROLLOUT_PERCENT=150", "PARAKEET_ROLLOUT_PERCENT=150 is above 100"),
        ("FALLBACK_BUDGET_USD_PER_DAY=5USD", "FALLBACK_BUDGET_USD_PER_DAY=5USD is neither a number nor none"),
        ("MAX_CONCURRENT_JOBS=four", "MAX_CONCURRENT_JOBS=four is not a whole number"),
        ("PROGRESS_EVENTS=yes", "PROGRESS_EVENTS=yes is neither true nor false"),
        ("DEEPGRAM_API_KEY=secret", "the key is in the secret deepgram-api-key-staging"),
        ("JOBS_SUBSCRIPTION=transcription-jobs-worker", "JOBS_SUBSCRIPTION names a resource"),
        ("GPU_BATCHSIZE=4", "GPU_BATCHSIZE is no setting of the pool"),
    ],
)
def test_a_setting_with_which_no_worker_would_start_is_not_rolled_out(change: str, said: str, tmp_path: Path) -> None:
    project = Project(tmp_path)

    line = project.refused("relaunch.sh", "staging", change)

    assert line.startswith(f"error: {said}")
    assert project.calls == []


def test_no_limit_is_an_empty_one_for_the_worker(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.done("deploy.sh", "staging", "--image", IMAGES[0])

    project.done("relaunch.sh", "staging", "FALLBACK_BUDGET_USD_PER_DAY=none", "GPU_BATCH_SIZE=4")

    assert (project.settings()["FALLBACK_BUDGET_USD_PER_DAY"], project.settings()["GPU_BATCH_SIZE"]) == ("", "4")


def test_two_environments_in_one_command_are_one_too_many() -> None:
    for name in ("relaunch.sh", "destroy.sh", "provision.sh", "logs.sh"):
        done = script(name, "staging", "production", *(("a", "b") if name == "logs.sh" else ()))
        assert done.returncode == 2, name
