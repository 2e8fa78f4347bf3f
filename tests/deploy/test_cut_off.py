"""Scripts that are cut off at any time and run again, and two at once."""

import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.deploy.project import IMAGES, Project
from tests.support.deploy.scripts import BARE, DEPLOY

KEY = {"DEEPGRAM_API_KEY": "a-secret-key"}
POOL = "transcription-worker-staging"


def ended_by_ctrl_c(project: Project, number: int, name: str, *args: str, **environment: str) -> bool:
    """Run a script, with Ctrl-C at its change of that number; returns whether it had that many."""
    project.change(interrupt_at=number)
    done = subprocess.run(
        [DEPLOY / name, *args],
        env={**BARE, **project.environment, **environment},
        start_new_session=True,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    reached: bool = project.state["interrupt_at"] == 0
    project.change(interrupt_at=0)
    assert (done.returncode != 0) == reached, done.stdout + done.stderr
    return reached


@pytest.mark.parametrize("sixth", range(6))
def test_ctrl_c_at_any_change_of_up_and_another_run_give_what_one_run_gives(
    sixth: int, finished: Project, tmp_path: Path
) -> None:
    project = Project(tmp_path)
    number = 3 + sixth * (len(finished.changes()) - 3) // 6

    assert ended_by_ctrl_c(project, number, "up.sh", "staging", "--image", IMAGES[0], **KEY)
    project.done("up.sh", "staging", "--image", IMAGES[0], **KEY)

    assert project.names() == finished.names()
    assert project.instances(POOL) == 1
    assert project.settings() == finished.settings()


@pytest.mark.parametrize("number", [2, 9, 16, 23, 30])
def test_destroying_that_was_cut_off_anywhere_is_finished_by_another_run(
    number: int, finished: Project, tmp_path: Path
) -> None:
    project = Project(tmp_path, **finished.state)
    destroy = ("destroy.sh", "staging", "--with-data", f"--yes={POOL}")

    assert ended_by_ctrl_c(project, number, *destroy)
    project.done(*destroy)

    left = {name for kind, names in project.names().items() if not kind.startswith("artifacts") for name in names}
    assert not {name for name in left if "staging" in name}  # images stay
    assert project.state["kept"]["monitoring policies"] == {}


def test_a_second_dashboard_that_a_cut_off_run_left_goes_with_the_first(finished: Project, tmp_path: Path) -> None:
    project = Project(tmp_path, **finished.state)
    state = project.state
    (title,) = state["kept"]["monitoring dashboards"].values()
    state["kept"]["monitoring dashboards"]["left/over"] = title
    project.change(kept=state["kept"])

    project.done("monitor.sh", "staging")

    assert len(project.state["kept"]["monitoring dashboards"]) == 1


# ---- Two at once ----


def test_a_deployment_that_another_one_overtook_is_not_taken_for_proven(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.done("deploy.sh", "staging", "--image", IMAGES[0])
    project.change(overtaken_by=IMAGES[2])

    line = project.refused("deploy.sh", "staging", "--image", IMAGES[1])

    assert line.startswith(f"error: another deployment made {POOL}-00003-abc, with another image, in the meantime")


def test_scripts_at_once_do_not_read_each_others_files(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.done("deploy.sh", "staging", "--image", IMAGES[0])

    named = [call.split(" replace ")[1].split()[0] for call in project.calls if " replace " in call]
    project.done("deploy.sh", "staging", "--image", IMAGES[1])
    again = [call.split(" replace ")[1].split()[0] for call in project.calls if " replace " in call][len(named) :]

    assert set(named).isdisjoint(again)
