"""Breaking an environment on purpose: everything is put back, whatever happens in between."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.deploy.project import IMAGES, Project
from tests.support.deploy.scripts import DEPLOY, ROOT

KEY = {"DEEPGRAM_API_KEY": "a-secret-key"}
POOL = "transcription-worker-staging"
SCENES = ("instances", "grant", "budget", "model", "revision")


def staging(tmp_path: Path) -> Project:
    project = Project(tmp_path)
    project.done("provision.sh", "staging")
    project.done("deploy.sh", "staging", "--image", IMAGES[0])
    return project


def as_it_was(project: Project) -> None:
    """The pool serves with the settings that it had, and the worker has its grant."""
    revisions = {one["metadata"]["name"]: index for index, one in enumerate(project.state["revisions"])}
    (serving,) = project.pool(POOL)["status"]["instanceSplits"]
    settings = project.settings(revisions[serving["revisionName"]])
    assert settings["FALLBACK_BUDGET_USD_PER_DAY"] == "5"
    assert settings["PARAKEET_MODEL_NAME"] == "/models/parakeet.nemo"
    assert project.instances(POOL) == 1
    binding = re.compile(
        r"storage buckets (add|remove)-iam-policy-binding gs://klipstream-audio-staging .*objectViewer"
    )
    changes = [found[1] for call in project.calls if (found := binding.search(call))]
    assert changes[-1] == "add"
    assert not [name for name in project.state["kept"]["pubsub subscriptions"] if "sample" in name]


def test_every_scene_is_played_measured_and_put_back(tmp_path: Path) -> None:
    project = staging(tmp_path)

    said = project.done("gameday.sh", "staging")

    for scene in SCENES:
        assert re.search(rf"^# {scene} +[a-z-]+: \d+ s +\d+ s$", said, re.MULTILINE), scene
    assert any("remove-iam-policy-binding gs://klipstream-audio-staging" in call for call in project.calls)
    as_it_was(project)


@pytest.mark.parametrize("scene", [scene for scene in SCENES if scene != "model"])
def test_a_scene_that_fails_in_the_middle_is_put_back(scene: str, tmp_path: Path) -> None:
    project = staging(tmp_path)
    project.change(faults={"pubsub topics publish": [1, "ERROR: unavailable"]})

    ended = project.run("gameday.sh", "staging", "--only", scene)

    assert ended.returncode != 0
    assert f"# putting back: mend_{scene}" in ended.stdout
    as_it_was(project)


def test_an_alert_that_does_not_fire_is_reported_and_the_day_goes_on(tmp_path: Path) -> None:
    project = staging(tmp_path)
    project.change(urls={"/prometheus/": {"data": {"result": []}}})

    said = project.done("gameday.sh", "staging", "--only", "grant", DETECT_SECONDS="30")

    assert "fuse-open: not within 30 s" in said
    as_it_was(project)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("production",), "production is not for playing"),
        (("staging", "--only", "earthquake"), "there is no scene earthquake"),
        (("staging",), "there is no worker pool"),
    ],
)
def test_what_cannot_be_played_is_refused_and_nothing_is_changed(
    args: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    project = Project(tmp_path)

    assert said in project.refused("gameday.sh", *args)
    assert project.changes() == []


@pytest.mark.timeout(300)
def test_the_scenes_of_this_machine(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}

    done = subprocess.run(
        [DEPLOY / "gameday.sh", "--local"], env=environment, capture_output=True, text=True, check=False, timeout=280
    )

    assert done.returncode == 0, done.stdout + done.stderr
    for scene in ("kill", "model"):
        assert re.search(rf"^# {scene} +.*: \d+ s +\d+ s$", done.stdout, re.MULTILINE), done.stdout
    assert list(tmp_path.glob("tmp.*")) == []
