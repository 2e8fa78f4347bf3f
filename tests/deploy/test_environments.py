"""Isolation of environments: a command acts only on its own environment, and overrides of the caller arrive."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.deploy.project import Project
from tests.support.deploy.scripts import BARE, DEPLOY, IMAGE, script

ENVIRONMENTS = ("staging", "production")
SCRIPTS = ("provision.sh", "deploy.sh", "rollback.sh", "relaunch.sh", "destroy.sh", "autoscale.sh", "monitor.sh")
OPTIONS = {"deploy.sh": ("--image", IMAGE), "destroy.sh": ("--with-data",)}
NUMBERS = {"VCPUS": "8", "MEMORY_GIB": "32", "MIN_INSTANCES": "1", "MAX_INSTANCES": "9", "MAX_CONCURRENT_JOBS": "7"}
NUMBERS |= {"BUDGET_USD_PER_MONTH": "77", "COST_ALERT_USD_PER_DAY": "7.5"}
NUMBERS |= {"PARAKEET_ROLLOUT_PERCENT": "37", "FALLBACK_BUDGET_USD_PER_DAY": "123", "HEALTH_PORT": "9090"}
DEFAULTS = (DEPLOY / "env" / "defaults.env").read_text()


def names() -> list[str]:
    """Every setting that an environment's files give a value."""
    texts = [DEFAULTS, *((DEPLOY / "env" / f"{name}.env").read_text() for name in ENVIRONMENTS)]
    found = re.findall(r'^(?:: "\$\{)?([A-Z_]+)(?::=|=)', "\n".join(texts), re.MULTILINE)
    return sorted(set(found) - {"ENVIRONMENT", "SUFFIX"})


def another(environment: str, name: str) -> str:
    """A value that the setting may have, and has not in that environment."""
    if "false" in (own := held(environment)[name], NUMBERS.get(name)) or own == "true":
        return "true" if own == "false" else "false"
    return NUMBERS.get(
        name, f"mine_{name.lower()}" if name == "COST_DATASET" else f"mine-{name.lower()}".replace("_", "-")
    )


def held(environment: str) -> dict[str, str]:
    """Return the variables of a shell that has sourced an environment's files with `set -a`."""
    sourced = f"set -a; . {DEPLOY}/env/{environment}.env; . {DEPLOY}/env/defaults.env; env -0"
    done = subprocess.run(["bash", "-c", sourced], env=BARE, capture_output=True, text=True, check=True)
    return dict(line.split("=", 1) for line in done.stdout.split("\0") if line)


def seen(environment: str, **given: str) -> dict[str, str]:
    """Return the variables of a command that runs with the environment's names and settings."""
    done = script("env.sh", environment, "env", "-0", **given)
    assert done.returncode == 0, done.stderr
    return dict(line.split("=", 1) for line in done.stdout.split("\0") if line)


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize(("asked", "other"), [ENVIRONMENTS, ENVIRONMENTS[::-1]])
def test_a_shell_with_the_other_environments_names_is_refused_and_nothing_is_called(
    name: str, asked: str, other: str, tmp_path: Path
) -> None:
    project = Project(tmp_path)

    ended = project.run(name, asked, *OPTIONS.get(name, ()), **{**held(other), **project.environment})

    assert ended.returncode == 1
    assert asked in ended.stderr
    assert other in ended.stderr
    assert project.calls == []


def test_destroying_staging_with_its_data_in_a_shell_that_holds_productions_names_changes_nothing(
    tmp_path: Path,
) -> None:
    project = Project(tmp_path)
    project.done("provision.sh", "production")
    standing = project.state["kept"]

    for confirmed in ("transcription-worker", "transcription-worker-staging"):
        line = project.refused("destroy.sh", "staging", "--with-data", f"--yes={confirmed}", **held("production"))
        assert line.startswith("error: you asked for staging, but ENVIRONMENT=production is set in this shell")

    assert project.state["kept"] == standing


def test_deploying_staging_in_a_shell_that_holds_productions_names_changes_nothing(tmp_path: Path) -> None:
    project = Project(tmp_path)

    line = project.refused("deploy.sh", "staging", "--image", IMAGE, **held("production"))

    assert line.startswith("error: you asked for staging, but ENVIRONMENT=production is set in this shell")
    assert project.calls == []


@pytest.mark.parametrize("name", ["POOL", "STATE_BUCKET", "JOBS_SUBSCRIPTION", "DEEPGRAM_SECRET", "SUFFIX"])
def test_one_name_of_the_other_environment_is_enough(name: str) -> None:
    done = script("deploy.sh", "staging", "--image", IMAGE, "--dry-run", **{name: held("production")[name]})

    assert done.returncode == 1
    assert f"{name}=" in done.stderr
    assert "staging" in done.stderr


def test_the_way_out_that_is_printed_works() -> None:
    done = script("deploy.sh", "staging", "--image", IMAGE, "--dry-run", ENVIRONMENT="production")
    (printed,) = re.findall(r"run it as: (env -i .*) \.\.\.", done.stderr)

    again = subprocess.run(
        ["bash", "-c", f"{printed} --image {IMAGE} --dry-run"],
        env={**BARE, "ENVIRONMENT": "production"},
        cwd=DEPLOY.parent,
        capture_output=True,
        text=True,
        check=False,
    )

    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_setting_of_the_files_that_the_caller_overrides_arrives(environment: str) -> None:
    given = {name: another(environment, name) for name in names()}

    found = seen(environment, **given)

    assert {name: found[name] for name in given} == given


@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("name", names())
def test_a_setting_that_differs_from_the_files_is_listed(environment: str, name: str) -> None:
    value = another(environment, name)

    done = script("env.sh", environment, "true", **{name: value})

    if name in {"PROJECT_ID", "REGION"}:
        assert re.search(rf"project.* {value}\b|region {value}\b", done.stderr)
    else:
        assert f"# from your shell: {name}={value} (the files say: " in done.stderr


def test_what_the_environment_file_sets_is_overridden_in_the_rendered_pool() -> None:
    done = script(
        "deploy.sh",
        "staging",
        "--render",
        "--image",
        IMAGE,
        FALLBACK_BUDGET_USD_PER_DAY="100",
        PROGRESS_EVENTS="false",
        PARAKEET_ROLLOUT_PERCENT="50",
    )

    for name, value in (("FALLBACK_BUDGET_USD_PER_DAY", "100"), ("PROGRESS_EVENTS", "false")):
        assert re.search(rf'- name: {name}\n +value: "{value}"', done.stdout)
    assert re.search(r'- name: PARAKEET_ROLLOUT_PERCENT\n +value: "50"', done.stdout)


def test_running_a_command_in_an_environment_leaves_the_callers_shell_as_it_was() -> None:
    line = f"{shlex.quote(str(DEPLOY / 'env.sh'))} production true 2>/dev/null; env -0"

    done = subprocess.run(["bash", "-c", line], env=BARE, capture_output=True, text=True, check=True)

    left = {entry.split("=")[0] for entry in done.stdout.split("\0") if entry}
    assert left - set(BARE) <= {"PWD", "SHLVL", "_", "OLDPWD"}


def copied(folder: Path) -> Path:
    """The scripts in a folder of their own, so that their files can be changed."""
    for path in DEPLOY.rglob("*"):
        if path.is_file() and path.parent.name in {"deploy", "env"}:
            target = folder / path.relative_to(DEPLOY)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
            target.chmod(path.stat().st_mode)
    return folder


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("MAX_INSTANCE=3", "line 8: MAX_INSTANCE is no setting"),
        ("MAX_INSTANCE=3\\", "line 8: MAX_INSTANCE=3\\: write NAME=value"),
        ("FALLBACK_BUDGET_USD_PER_DAY 5", "line 8: FALLBACK_BUDGET_USD_PER_DAY 5: write NAME=value"),
        ("MAX_INSTANCES = 3", "line 8: MAX_INSTANCES = 3: write NAME=value"),
        ("MAX_INSTANCES= 3", "write NAME=value"),
        ("PIPELINE_MEMBER=group:the pipeline", "with quotes around a value that has blanks"),
        ("MAX_INSTANCES=3#three", "MAX_INSTANCES=3#three is not a whole number"),
        ("MAX_INSTANCES=3; touch /tmp/never", "write NAME=value"),
        ("POOL=$(touch /tmp/never)", "write NAME=value"),
        ("PROJECT_ID=`gcloud config get project`", "write NAME=value"),
        ("POOL=$NOT_SET_ANYWHERE", "NOT_SET_ANYWHERE: unbound variable"),
        ("MAX_INSTANCES=3\r", "has the line ends of Windows"),
        ("POOL=worker-staging\r", "has the line ends of Windows"),
        ("VCPUS=08", "VCPUS=08 is not a whole number"),
        ("VCPUS=1e3", "VCPUS=1e3 is not a whole number"),
        ("MEMORY_GIB=0", "MEMORY_GIB=0: it must be 1 at least"),
        ("HEALTH_PORT=no", "HEALTH_PORT=no is not a whole number"),
        ("HEALTH_PORT='8080 # x'", "HEALTH_PORT=8080 # x is not a whole number"),
        ("ENABLE_FALLBACK=no", "ENABLE_FALLBACK=no is neither true nor false"),
        ("PROGRESS_EVENTS=True", "PROGRESS_EVENTS=True is neither true nor false"),
        ("ENVIRONMENT=production", "deploy/env/staging.env has ENVIRONMENT=production: it must be staging"),
        (
            "SUFFIX=",
            "deploy/env/staging.env and deploy/env/production.env both name the worker pool transcription-worker",
        ),
        (
            "SUFFIX=-a-very-long-name",
            "WORKER_ACCOUNT=transcription-worker-a-very-long-name cannot be such a name: it takes 6 to 30",
        ),
        ("SUFFIX=-Stage", "WORKER_ACCOUNT=transcription-worker-Stage cannot be such a name"),
        ("POOL=a" + 49 * "b", "cannot be such a name: it takes at most 49"),
        ("AUDIO_BUCKET=gs://my-audio", "AUDIO_BUCKET=gs://my-audio cannot be such a name: it takes 3 to 63"),
        ("COST_DATASET=costs-of-all", "COST_DATASET=costs-of-all cannot be such a name"),
        ("COST_ALERT_USD_PER_DAY=50,5", "COST_ALERT_USD_PER_DAY=50,5 is not a number, such as 50 or 50.5"),
        ("MAX_INSTANCES=three", "MAX_INSTANCES=three is not a whole number"),
        ('PROGRESS_EVENTS="yes', "is not valid shell"),
        ("PARAKEET_ROLLOUT_PERCENT=101", "PARAKEET_ROLLOUT_PERCENT=101 is above 100"),
        ("MIN_INSTANCES=7", "MIN_INSTANCES=7 is above MAX_INSTANCES=1"),
        ("FALLBACK_BUDGET_USD_PER_DAY=5USD", "FALLBACK_BUDGET_USD_PER_DAY=5USD is neither a number nor none"),
        ("DEEPGRAM_MODEL='no\"va'", "DEEPGRAM_MODEL holds a quote"),
    ],
)
def test_a_slip_in_an_environment_file_ends_with_one_line(written: str, said: str, tmp_path: Path) -> None:
    deploy = copied(tmp_path / "deploy")
    with (deploy / "env" / "staging.env").open("a", newline="") as file:
        file.write(written)  # the last line may lack its end

    done = script(str(deploy / "deploy.sh"), "staging", "--image", IMAGE, "--dry-run")

    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert said in done.stderr
    assert not Path("/tmp/never").exists()  # noqa: S108 - a name that nothing makes


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("export DEEPGRAM_MODEL=nova-4", "nova-4"),
        ("  DEEPGRAM_MODEL=nova-4  ", "nova-4"),
        ("DEEPGRAM_MODEL=nova-4  # the newer one", "nova-4"),
        ('DEEPGRAM_MODEL="nova-4"', "nova-4"),
        ("DEEPGRAM_MODEL='nova 4: # no'", "nova 4: # no"),
        ('DEEPGRAM_MODEL="nova$SUFFIX"', "nova-staging"),
        ("DEEPGRAM_MODEL=nova${SUFFIX}", "nova-staging"),
        ('  : "${DEEPGRAM_MODEL:=nova-4}" # by default', "nova-4"),
        ("\n\t\nDEEPGRAM_MODEL=1e3", "1e3"),
        ("DEEPGRAM_MODEL=no", "no"),
    ],
)
def test_an_environment_file_may_be_written_as_people_write_them_and_yaml_takes_every_value_as_text(
    written: str, value: str, tmp_path: Path
) -> None:
    deploy = copied(tmp_path / "deploy")
    with (deploy / "env" / "staging.env").open("a") as file:
        file.write(written)

    done = script(str(deploy / "deploy.sh"), "staging", "--image", IMAGE, "--render")

    (container,) = yaml.safe_load(done.stdout)["spec"]["template"]["spec"]["containers"]
    assert {entry["name"]: entry.get("value") for entry in container["env"]}["DEEPGRAM_MODEL"] == value


@pytest.mark.parametrize("missing", ["ENVIRONMENT", "SUFFIX"])
def test_an_environment_file_without_its_name_or_suffix_is_refused(missing: str, tmp_path: Path) -> None:
    deploy = copied(tmp_path / "deploy")
    lines = {"ENVIRONMENT": "ENVIRONMENT=qa", "SUFFIX": "SUFFIX=-qa"}
    del lines[missing]
    (deploy / "env" / "qa.env").write_text("\n".join(lines.values()))

    done = script(str(deploy / "deploy.sh"), "qa", "--image", IMAGE, "--dry-run")

    assert done.stderr == f"error: {deploy}/env/qa.env gives no {missing}; see deploy/env/staging.env\n"


def test_a_copied_environment_file_whose_suffix_was_forgotten_never_acts_on_the_first_environment(
    tmp_path: Path,
) -> None:
    deploy = copied(tmp_path / "deploy")
    (deploy / "env" / "qa.env").write_text("ENVIRONMENT=qa\nSUFFIX=-staging\n")

    done = script(str(deploy / "destroy.sh"), "qa", "--dry-run")

    assert "qa.env and deploy/env/staging.env both name the worker pool transcription-worker-staging" in done.stderr
    assert done.stdout == ""


def test_two_environments_may_have_the_same_names_in_two_projects(tmp_path: Path) -> None:
    deploy = copied(tmp_path / "deploy")
    (deploy / "env" / "qa.env").write_text("ENVIRONMENT=qa\nSUFFIX=-staging\nPROJECT_ID=klipstream-qa\n")

    assert script(str(deploy / "deploy.sh"), "qa", "--image", IMAGE, "--dry-run").returncode == 0


def test_a_third_environment_file_with_a_slip_does_not_stop_the_others(tmp_path: Path) -> None:
    deploy = copied(tmp_path / "deploy")
    (deploy / "env" / "qa.env").write_text("ENVIRONMENT=qa\nSUFFIX=$NOT_SET\n")

    done = script(str(deploy / "deploy.sh"), "staging", "--image", IMAGE, "--dry-run")

    assert (done.returncode, done.stderr) == (0, "")


def test_the_environment_files_themselves_set_nothing_unknown() -> None:
    for environment in ENVIRONMENTS:
        assert seen(environment)["ENVIRONMENT"] == environment


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"login": False}, "no login, or one that has expired: gcloud auth login"),
        ({"version": "401.0.0"}, "gcloud is version 401.0.0, 528 or newer is needed: gcloud components update"),
        (
            {"faults": {"gcloud projects describe": [1, "ERROR: permission denied"]}},
            "project klipstream cannot be read",
        ),
    ],
)
@pytest.mark.parametrize("name", SCRIPTS)
def test_login_version_and_project_are_checked_before_anything_else(
    name: str, wrong: dict[str, object], said: str, tmp_path: Path
) -> None:
    project = Project(tmp_path, **wrong)
    options = ("--yes=transcription-worker",) if name == "destroy.sh" else OPTIONS.get(name, ())

    line = project.refused(name, "production", *options)

    assert said in line
    assert project.changes() == []


BASICS = ("bash", "env", "sed", "dirname", "basename", "grep", "head")


def only(folder: Path, tools: tuple[str, ...]) -> None:
    """Make the folder one that has those programs alone."""
    for tool in tools:
        found = next(Path(part, tool) for part in os.environ["PATH"].split(":") if Path(part, tool).exists())
        (folder / tool).symlink_to(found)


def test_without_gcloud_a_script_says_where_to_get_it(tmp_path: Path) -> None:
    only(tmp_path, BASICS)

    done = script("provision.sh", "staging", PATH=str(tmp_path))

    assert done.returncode == 1
    assert "gcloud is not installed: https://" in done.stderr


def test_a_failure_that_is_no_absence_is_never_taken_for_one(tmp_path: Path) -> None:
    refusal = "ERROR: (gcloud.storage.buckets.describe) [me] does not have permission to access b (or it may not exist)"
    project = Project(tmp_path, faults={"gcloud storage buckets describe": [1, refusal]})

    line = project.refused("provision.sh", "staging", "--only", "buckets")

    assert "does not have permission" in line
    assert project.changes() == []


@pytest.mark.parametrize("missing", ["python3", "curl"])
def test_a_tool_that_is_missing_is_named_before_anything_else(missing: str, tmp_path: Path) -> None:
    only(tmp_path, BASICS)
    for tool in {"gcloud", "python3", "curl"} - {missing}:
        (tmp_path / tool).symlink_to("/bin/false")

    done = script("provision.sh", "staging", PATH=str(tmp_path))

    assert done.stderr == f"error: {missing} is not installed, and these scripts need it\n"


@pytest.mark.parametrize("name", ["DRY_RUN", "FOUND_OUTPUT", "KEY_MISSING", "SAMPLE_SUBSCRIPTION"])
def test_a_variable_that_happens_to_be_in_the_callers_shell_changes_nothing(name: str, tmp_path: Path) -> None:
    project = Project(tmp_path)
    path = tmp_path / "not-ours"

    project.done("up.sh", "staging", "--image", IMAGE, DEEPGRAM_API_KEY="key", **{name: str(path)})

    assert project.instances("transcription-worker-staging") == 1
    assert not path.exists()
    assert [call for call in project.calls if str(path) in call] == []
