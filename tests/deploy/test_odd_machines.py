"""The scripts on machines, in shells and in folders that are not their author's, and with a gcloud that says more."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.deploy.project import IMAGES, Project
from tests.support.deploy.scripts import BARE, DEPLOY, IMAGE

KEY = {"DEEPGRAM_API_KEY": "a-secret-key"}
POOL = "transcription-worker-staging"
SOURCED = {"lib", "environment", "arguments", "api", "pool", "quotas", "sample_job", "gameday_local"}
SCRIPTS = sorted(path.name for path in DEPLOY.glob("*.sh") if path.stem not in SOURCED)
REMARKS = """WARNING: This command is using service account impersonation; check your credentials.
Updates are available for some Google Cloud CLI components.
Your active configuration is: [elsewhere]"""


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the scripts and of what they read, in a folder with blanks."""
    root = tmp_path_factory.mktemp("odd") / "my clone (1)"
    shutil.copytree(DEPLOY, root / "deploy", ignore=shutil.ignore_patterns("__pycache__", "requirements-*"))
    shutil.copytree(DEPLOY.parent / "worker" / "core" / "costs", root / "worker" / "core" / "costs")
    (root / "cloudbuild.yaml").write_bytes((DEPLOY.parent / "cloudbuild.yaml").read_bytes())
    return root


# ---- Shells ----


@pytest.mark.parametrize("shell", [["sh"], ["dash"], ["bash", "--posix"], ["bash"]], ids=" ".join)
@pytest.mark.parametrize("name", [name for name in SCRIPTS if name not in {"smoke.sh", "pin.sh", "env.sh"}])
def test_a_script_may_be_started_by_any_shell(name: str, shell: list[str]) -> None:
    if shutil.which(shell[0]) is None:
        pytest.skip(f"{shell[0]} is not installed")

    done = subprocess.run([*shell, DEPLOY / name, "--help"], env=BARE, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert f"deploy/{name} " in done.stdout


@pytest.mark.parametrize("path", [*DEPLOY.glob("*.sh"), DEPLOY / "terraform" / "vars.sh"], ids=lambda path: path.name)
def test_a_script_uses_no_tool_or_option_that_macos_lacks(path: Path) -> None:
    text = re.sub(r"#.*", "", path.read_text())
    tools = r"sed -i |sed -u|\btac\b|\bsha256sum\b|\btimeout \d|readlink -f|date -d|grep -P|mktemp --|stat -c|env -0"

    assert re.findall(rf"{tools}|[;{{][pq]\}}", text) == []  # the last: sed's commands end with a semicolon there


def test_an_old_bash_is_named_with_what_to_do(tmp_path: Path) -> None:
    lines = (DEPLOY / "lib.sh").read_text().replace("BASH_VERSINFO[0]", "3").splitlines()
    (tmp_path / "lib.sh").write_text("\n".join(lines[: lines.index("}") + 1]))

    done = subprocess.run(["bash", tmp_path / "lib.sh"], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "is too old, 4.4 or newer is needed (macOS: brew install bash)" in done.stderr


# ---- Folders, variables, locales ----


@pytest.mark.parametrize(
    "run",
    [
        ("up.sh", "--image", IMAGES[0]),
        ("provision.sh", "--only", "audit"),
        ("rollback.sh", "--to-deepgram"),
        ("relaunch.sh", "DEEPGRAM_MODEL=a 'model'"),
        ("monitor.sh",),
    ],
    ids=" ".join,
)
def test_what_is_printed_can_be_pasted_with_blanks_in_every_path(
    run: tuple[str, ...], clone: Path, tmp_path: Path
) -> None:
    name, *options = run
    project = Project(tmp_path)
    if name in {"rollback.sh", "relaunch.sh"}:
        project.done("deploy.sh", "staging", "--image", IMAGES[0])
    odd = {"TMPDIR": str(tmp_path / "tem porary"), "CDPATH": f"/:{clone}"}
    (tmp_path / "tem porary").mkdir()

    printed = project.done(str(clone / "deploy" / name), "staging", *options, "--dry-run", **odd)
    changes = len(project.changes())
    pasted = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", printed],
        env={**BARE, **project.environment, **KEY},
        capture_output=True,
        text=True,
        check=False,
    )

    assert pasted.returncode == 0, pasted.stderr
    assert len(project.changes()) > changes


def test_a_script_finds_its_files_from_any_folder(clone: Path, tmp_path: Path) -> None:
    environment = {**BARE, "CDPATH": str(clone), "TMPDIR": str(tmp_path)}
    del environment["HOME"]

    for folder, command in (
        (clone, "deploy/deploy.sh"),
        (clone / "deploy", "./deploy.sh"),
        (clone / "worker", "../deploy/deploy.sh"),
    ):
        done = subprocess.run(
            [command, "staging", "--image", IMAGE, "--dry-run"],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_a_changed_alert_is_noticed_from_any_folder(clone: Path, tmp_path: Path) -> None:
    project = Project(tmp_path)
    up = str(clone / "deploy" / "up.sh")
    project.done(up, "staging", "--image", IMAGES[0], ENABLE_FALLBACK="false")
    alert = next((clone / "deploy" / "monitoring" / "alerts").glob("*.yaml"))
    alert.write_text(alert.read_text() + "# changed\n")
    calls = len(project.calls)

    project.done(up, "staging", ENABLE_FALLBACK="false")

    assert any("monitoring policies update" in call for call in project.calls[calls:])


@pytest.fixture(scope="module")
def german(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables of a locale whose numbers have commas."""
    folder = tmp_path_factory.mktemp("locale")
    if shutil.which("localedef") is None or not Path("/usr/share/i18n/locales/de_DE").exists():
        pytest.skip("no locale can be made here")
    subprocess.run(["localedef", "-i", "de_DE", "-f", "UTF-8", str(folder / "de_DE.UTF-8")], check=True)
    return {"LOCPATH": str(folder), "LANG": "de_DE.UTF-8", "LC_ALL": "de_DE.UTF-8"}


def test_prices_have_a_point_in_every_locale(german: dict[str, str], tmp_path: Path) -> None:
    printed = Project(tmp_path).done("up.sh", "staging", "--image", IMAGES[0], **KEY, **german)

    assert "# an instance: $0.905 an hour; in a month of 730 hours: $0 at MIN_INSTANCES=0, $661 at" in printed


# ---- gcloud that says more than it was asked, and configurations of another project ----


def test_remarks_of_gcloud_before_its_answers_change_nothing(finished: Project, tmp_path: Path) -> None:
    project = Project(tmp_path, remarks=REMARKS)

    project.done("up.sh", "staging", "--image", IMAGES[0], **KEY)
    calls = len(project.changes())
    again = project.done("up.sh", "staging")

    assert project.names() == finished.names()
    assert again.count("# nothing to do") == 4
    assert project.changes()[calls:] == []


def test_a_warning_is_not_taken_for_a_workers_readiness(tmp_path: Path) -> None:
    project = Project(tmp_path, remarks=REMARKS, faults={"gcloud logging read": [0, "a remark of a new kind"]})

    line = project.refused("deploy.sh", "staging", "--image", IMAGES[0], READY_SECONDS="10")

    assert f"no worker of {POOL}-00001-abc became ready within 10 s" in line


@pytest.mark.parametrize("remarks", ["", REMARKS])
def test_the_reason_of_a_failure_is_its_error_and_not_the_warning_before_it(remarks: str, tmp_path: Path) -> None:
    refusal = "ERROR: (gcloud.storage.buckets.describe) PERMISSION_DENIED: no access to the bucket"
    project = Project(tmp_path, remarks=remarks, faults={"gcloud storage buckets describe": [1, refusal]})

    line = project.refused("provision.sh", "staging", "--only", "buckets")

    assert line == "error: (gcloud.storage.buckets.describe) PERMISSION_DENIED: no access to the bucket"


def test_every_command_names_project_and_region_so_that_no_configuration_of_gcloud_decides(tmp_path: Path) -> None:
    project = Project(tmp_path)
    elsewhere = {"CLOUDSDK_CORE_PROJECT": "elsewhere", "CLOUDSDK_RUN_REGION": "europe-west1"}

    project.done("up.sh", "staging", "--image", IMAGES[0], **KEY, **elsewhere)
    project.done("starter.sh", "staging", **elsewhere)

    of_run = [call for call in project.calls if re.search(r"gcloud (beta )?run ", call) and "--help" not in call]
    unplaced = [call for call in of_run if "--region=us-central1" not in call and " replace " not in call]
    assert unplaced == []  # the file of `replace` names its region
    assert [call for call in project.calls if "builds submit" in call and "--region=global" not in call] == []
    assert not any("elsewhere" in call or "europe-west1" in call for call in project.calls)


@pytest.mark.parametrize("key", ["s3cr3t\n", "s3cr3t\r", "a s3cr3t", "\ns3cr3t", " s3cr3t"])
def test_a_key_with_a_blank_or_a_line_break_is_refused_and_not_shown(key: str, tmp_path: Path) -> None:
    project = Project(tmp_path)

    ended = project.run("up.sh", "staging", "--image", IMAGES[0], DEEPGRAM_API_KEY=key)

    assert ended.returncode == 1
    assert "error: DEEPGRAM_API_KEY holds a blank or a line break: set it to the key alone" in ended.stderr
    assert "s3cr3t" not in ended.stdout + ended.stderr
    assert project.changes() == []


def test_a_second_key_is_not_dropped_silently(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.done("up.sh", "staging", "--image", IMAGES[0], **KEY)

    assert "# DEEPGRAM_API_KEY is not used" in project.done("up.sh", "staging", DEEPGRAM_API_KEY="another")


def test_without_home_the_whole_way_works(tmp_path: Path) -> None:
    project = Project(tmp_path)
    environment = {"PATH": os.environ["PATH"], **project.environment, **KEY}

    done = subprocess.run(
        [DEPLOY / "up.sh", "staging", "--image", IMAGES[0]],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr.strip().splitlines()[1:]) == (0, [])
    assert project.instances(POOL) == 1
