import functools
import json
import re
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.support.deploy.project import GIB, IMAGES, QUOTAS, Project
from tests.support.deploy.scripts import DEPLOY, IMAGE, dry_run, rendered, script
from worker.settings import fields, read_settings

SCHEMA = yaml.safe_load((DEPLOY / "schemas" / "worker-pool.schema.json").read_text())
POOL = "gcloud beta run worker-pools"
GPU, CPU, MEMORY = QUOTAS


def container(environment: str, **settings: str) -> dict:
    return yaml.safe_load(rendered(environment, **settings))["spec"]["template"]["spec"]["containers"][0]


def environment_of(name: str) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "(secret)") for entry in container(name)["env"]}


@pytest.mark.parametrize("environment", ["staging", "production"])
def test_the_pool_is_what_the_schema_allows(environment: str) -> None:
    jsonschema.validate(yaml.safe_load(rendered(environment)), SCHEMA)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("nvidia-l4", "nvidia-h100"), ("startupProbe", "readinessProbe"), ("@sha256:", ":tag-"), ('cpu: "4"', 'cpu: "2"')],
)
def test_the_schema_notices_what_cloud_run_would_refuse(wrong: str, right: str) -> None:
    broken = yaml.safe_load(rendered("production").replace(wrong, right))

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, SCHEMA)


def test_the_default_shape_is_one_l4_with_4_vcpus_and_16_gib() -> None:
    assert container("production")["resources"]["limits"] == {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "1"}
    larger = container("production", VCPUS="8", MEMORY_GIB="32")
    assert larger["resources"]["limits"] == {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "1"}


def test_every_variable_in_the_pool_is_a_setting_of_the_worker() -> None:
    known = {variable for variable, _, _ in fields()}

    assert set(environment_of("production")) - known == {"OTEL_RESOURCE_ATTRIBUTES"}  # OpenTelemetry's own


def test_the_settings_are_the_workers_own_defaults_but_for_names_and_the_baked_model() -> None:
    given = {name: value for name, value in environment_of("production").items() if value != "(secret)"}

    settings, defaults = read_settings(given).masked(), read_settings({}).masked()
    differing = {name for name, value in settings.items() if value != defaults[name]}

    buckets = {"output_bucket", "state_bucket", "input_buckets", "output_buckets"}
    watched = {"health_host", "metrics_exporter", "traces_exporter"}
    assert differing == buckets | watched | {"parakeet_model_name", "fallback_budget_usd_per_day"}


def test_the_key_comes_from_the_secret() -> None:
    (key,) = (entry for entry in container("staging")["env"] if entry["name"] == "DEEPGRAM_API_KEY")

    assert key["valueFrom"] == {"secretKeyRef": {"name": "deepgram-api-key-staging", "key": "latest"}}


def test_loading_the_model_has_the_longest_time_that_cloud_run_gives() -> None:
    probe = container("production")["startupProbe"]

    assert probe["periodSeconds"] * probe["failureThreshold"] == 240


def test_a_name_that_is_not_set_is_an_error(tmp_path: Path) -> None:
    for path in DEPLOY.glob("*.*"):
        (tmp_path / path.name).write_text(path.read_text().replace("${REGION}", "${REGOIN}"))
    (tmp_path / "env").symlink_to(DEPLOY / "env")
    (tmp_path / "deploy.sh").chmod(0o755)

    done = script(str(tmp_path / "deploy.sh"), "staging", "--render", "--image", IMAGE)

    assert done.returncode != 0
    assert "needs REGOIN" in done.stderr


@pytest.mark.parametrize("image", ["worker:latest", "worker@sha256:12", "worker@sha256:" + "g" * 64, ""])
def test_an_image_that_is_not_named_by_digest_is_refused(image: str) -> None:
    done = script("deploy.sh", "staging", "--image", image, "--dry-run") if image else script("deploy.sh", "staging")

    assert done.returncode == 1
    assert "must name a digest" in done.stderr


def test_an_image_that_does_not_exist_is_refused_before_anything_changes(tmp_path: Path) -> None:
    project = Project(tmp_path, images=[])

    line = project.refused("deploy.sh", "production", "--image", IMAGE)

    assert f"there is no image {IMAGE}" in line
    assert project.changes() == []


def test_a_dry_run_shows_every_step() -> None:
    commands = dry_run("deploy.sh", "production", "--image", IMAGE)

    assert [" ".join(words[1:5]) for words in commands] == [
        "artifacts docker images describe",
        "beta quotas info list",
        "beta run worker-pools replace",
        "beta run worker-pools replace",
        "beta run worker-pools describe",
        "artifacts docker tags add",
    ]
    assert "--dry-run" in commands[2]


def deployed(tmp_path: Path, *images: str, environment: str = "production", **state: object) -> Project:
    """A project whose pool has a revision of each of the images, the last one serving."""
    return Project(tmp_path, **{**after_deploying(images, environment), **state})


@functools.cache
def after_deploying(images: tuple[str, ...], environment: str) -> dict[str, Any]:
    """The project's state after the script was run once for each image."""
    with tempfile.TemporaryDirectory() as folder:
        project = Project(Path(folder), **(after_deploying(images[:-1], environment) if images[1:] else {}))
        project.done("deploy.sh", environment, "--image", images[-1])
        return project.state


def test_a_new_pool_gets_one_instance_and_is_waited_for(tmp_path: Path) -> None:
    project = Project(tmp_path)

    project.done("deploy.sh", "production", "--image", IMAGES[0])

    assert project.instances() == 1
    assert project.shares() == {"1": 100}
    assert any("worker.ready" in call for call in project.calls if "logging read" in call)


def test_the_server_validates_before_anything_changes(tmp_path: Path) -> None:
    project = Project(tmp_path, refuses="metadata.annotations: unknown")

    line = project.refused("deploy.sh", "production", "--image", IMAGE)

    assert "nothing was changed" in line
    assert project.changes() == []


def test_a_revision_that_does_not_start_is_a_failure_that_names_what_serves(tmp_path: Path) -> None:
    project = deployed(tmp_path, IMAGES[0])
    project.change(starts=False)

    line = project.refused("deploy.sh", "production", "--image", IMAGES[1])

    assert "transcription-worker-00001-abc goes on serving" in line


def test_a_worker_that_never_gets_ready_is_a_failure(tmp_path: Path) -> None:
    project = Project(tmp_path, faults={"gcloud logging read": [0, "", 0]})
    silent = {"gcloud logging read .*worker.ready": [1, "ERROR: unavailable"]}
    project.change(faults=silent)

    ended = project.run("deploy.sh", "production", "--image", IMAGE, READY_SECONDS="10")

    assert ended.returncode != 0


@pytest.mark.parametrize("name", ["PARAKEET_ROLLOUT_PERCENT", "FALLBACK_BUDGET_USD_PER_DAY"])
def test_a_setting_that_lives_in_the_pool_is_kept_by_the_next_deployment(name: str, tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.done("deploy.sh", "production", "--image", IMAGES[0], **{name: "10"})

    said = project.done("deploy.sh", "production", "--image", IMAGES[1])
    kept = project.settings()[name]
    project.done("deploy.sh", "production", "--image", IMAGES[2], **{name: "50"})
    changed = project.settings()[name]
    project.done("deploy.sh", "production", "--image", IMAGES[3], "--from-files")

    assert (kept, changed) == ("10", "50")
    assert f"# kept: {name}=10 (the files say" in said
    assert project.settings()[name] not in {"10", "50"} or name == "FALLBACK_BUDGET_USD_PER_DAY"
    assert project.settings()[name] == {"PARAKEET_ROLLOUT_PERCENT": "100"}.get(name, "50")


def test_a_build_that_says_nothing_about_the_share_of_videos_keeps_it(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.done("deploy.sh", "production", "--image", IMAGES[0], PARAKEET_ROLLOUT_PERCENT="10")

    project.done("deploy.sh", "production", "--image", IMAGES[1], PARAKEET_ROLLOUT_PERCENT="")

    assert project.settings()["PARAKEET_ROLLOUT_PERCENT"] == "10"


def test_the_shape_is_kept(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.done("deploy.sh", "production", "--image", IMAGES[0], VCPUS="8", MEMORY_GIB="32")

    project.done("deploy.sh", "production", "--image", IMAGES[1])

    limits = project.pool()["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert (limits["cpu"], limits["memory"]) == ("8", "32Gi")
    assert project.settings()["INSTANCE_VCPUS"] == "8"


def test_an_unlimited_deepgram_budget_must_be_explicit_and_is_kept(tmp_path: Path) -> None:
    project = deployed(tmp_path, IMAGES[0])
    by_default = project.settings()["FALLBACK_BUDGET_USD_PER_DAY"]

    project.done("deploy.sh", "production", "--image", IMAGES[1], FALLBACK_BUDGET_USD_PER_DAY="none")
    project.done("deploy.sh", "production", "--image", IMAGES[2])

    assert float(by_default) > 0
    assert project.settings()["FALLBACK_BUDGET_USD_PER_DAY"] == ""


def test_what_would_change_is_shown_before_and_without_changing_anything(tmp_path: Path) -> None:
    project = deployed(tmp_path, IMAGES[0])
    project.done("relaunch.sh", "production", "GPU_BATCH_SIZE=4")
    before = project.state

    said = project.done("deploy.sh", "production", "--image", IMAGES[1], "--diff", MAX_PARKED="9")

    assert re.search(rf"#   image +{IMAGES[0]} -> {IMAGES[1]}", said)
    assert re.search(r"#   GPU_BATCH_SIZE +4 -> \(empty\)", said)
    assert re.search(r"#   MAX_PARKED +4 -> 9", said)
    assert re.search(r"#   RELAUNCHED +\S+ -> \(not set\)", said)
    assert project.state == before


def test_a_pool_at_zero_is_proved_with_one_instance_and_handed_back(tmp_path: Path) -> None:
    project = deployed(tmp_path, IMAGES[0])
    scaled_to(project, 0)

    said = project.done("deploy.sh", "production", "--image", IMAGES[1], "--sample-job")

    assert "sample job" in said
    assert "398 words by parakeet" in said
    assert "handing the instance count back: 1 -> 0" in said
    assert project.instances() == 0
    assert project.shares() == {"2": 100}
    assert len(project.state["revisions"]) == 2


def test_a_failure_hands_the_count_back_too(tmp_path: Path) -> None:
    failed = {"event_type": "transcription.failed"}
    failed |= {"error": {"error_code": "GPU_NOT_AVAILABLE", "error_message": "no GPU", "suggested_action": "look"}}  # type: ignore[dict-item]
    project = deployed(tmp_path, IMAGES[0], answers=failed)
    scaled_to(project, 0)

    line = project.refused("deploy.sh", "production", "--image", IMAGES[1], "--sample-job")

    assert "GPU_NOT_AVAILABLE" in line
    assert project.instances() == 0
    assert not [name for name in project.state["kept"].get("pubsub subscriptions", {}) if "sample" in name]


def test_ctrl_c_while_waiting_hands_the_count_back(tmp_path: Path) -> None:
    project = deployed(tmp_path, IMAGES[0])
    scaled_to(project, 0)
    project.change(answers=None)
    environment = {**project.environment, "POLL_SECONDS": "0.05", "SAMPLE_SECONDS": "60", "HOME": "/nonexistent"}
    command = [DEPLOY / "deploy.sh", "production", "--image", IMAGES[1], "--sample-job"]

    with subprocess.Popen(
        command, env={**environment, "POLL_SECONDS": "1"}, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as running:
        assert running.stdout is not None
        next(line for line in running.stdout if "topics publish" in line)
        running.send_signal(signal.SIGINT)
        running.send_signal(signal.SIGTERM)
        said = running.stdout.read()

    assert running.returncode == 130
    assert "handing the instance count back" in said
    assert project.instances() == 0


def scaled_to(project: Project, count: int) -> None:
    """As the autoscaler leaves the pool."""
    state = project.state
    pool = state["kept"]["run worker-pools"]["transcription-worker"]
    pool["metadata"]["annotations"]["run.googleapis.com/manualInstanceCount"] = str(count)
    project.change(kept=state["kept"])


def test_a_roll_out_keeps_the_number_of_instances(tmp_path: Path) -> None:
    project = deployed(tmp_path, IMAGES[0])
    scaled_to(project, 3)

    project.done("deploy.sh", "production", "--image", IMAGES[1])

    assert project.instances() == 3


def test_what_serves_and_what_a_rollback_would_take_are_tagged_for_the_registry_to_keep(tmp_path: Path) -> None:
    project = deployed(tmp_path, IMAGES[0])

    project.done("deploy.sh", "production", "--image", IMAGES[1])

    tagged = [call.split("tags add ")[1].split() for call in project.calls if "tags add" in call]

    registry = IMAGES[0].split("@")[0]
    assert tagged[-2:] == [[IMAGES[0], f"{registry}:production-before"], [IMAGES[1], f"{registry}:production"]]


# ---- Quotas ----


@pytest.mark.parametrize(
    ("quotas", "reason"),
    [
        ({GPU: ["2"], CPU: ["200000"], MEMORY: [str(400 * GIB)]}, f"{GPU}=2"),
        ({GPU: ["9"], CPU: ["8000"], MEMORY: [str(400 * GIB)]}, f"{CPU}=8000"),
        ({GPU: ["9"], CPU: ["20000"], MEMORY: [str(40 * GIB)]}, f"{MEMORY}={40 * GIB}"),
    ],
)
def test_the_quota_that_binds_is_named_and_nothing_is_changed(
    quotas: dict[str, list[str]], reason: str, tmp_path: Path
) -> None:
    project = deployed(tmp_path, IMAGES[0], quotas=quotas)
    scaled_to(project, 2)
    before = project.changes()

    line = project.refused("deploy.sh", "production", "--image", IMAGES[1])

    assert f"let 2 instances of 4 vCPU and 16 GiB run ({reason}), 3 are needed" in line
    assert project.changes() == before


def test_a_new_pool_needs_no_instance_more_than_it_gets(tmp_path: Path) -> None:
    Project(tmp_path, quotas={**QUOTAS, GPU: ["1"]}).done("deploy.sh", "production", "--image", IMAGE)


def test_a_quota_of_several_lines_counts_by_the_largest(tmp_path: Path) -> None:
    project = deployed(tmp_path, IMAGES[0], quotas={**QUOTAS, GPU: ["0", "3", "", "-"]})

    project.done("deploy.sh", "production", "--image", IMAGES[1])


@pytest.mark.parametrize("granted", [["0"], []])
def test_a_first_deployment_may_go_on_where_google_grants_gpus_with_it(granted: list[str], tmp_path: Path) -> None:
    project = Project(tmp_path, quotas={**QUOTAS, GPU: granted} if granted else {})

    said = project.done("deploy.sh", "production", "--image", IMAGE)

    assert "Google may grant 3 L4s" in said


def test_the_check_of_quotas_can_be_left_out(tmp_path: Path) -> None:
    project = deployed(tmp_path, IMAGES[0], quotas={**QUOTAS, GPU: ["1"]})

    project.done("deploy.sh", "production", "--image", IMAGES[1], "--no-quota-check")


def test_a_region_without_l4_is_named(tmp_path: Path) -> None:
    line = Project(tmp_path).refused("deploy.sh", "production", "--image", IMAGE, REGION="europe-north1")

    assert "Cloud Run has no L4 in europe-north1" in line


def test_no_roll_out_beyond_the_most_instances() -> None:
    done = script("deploy.sh", "production", "--image", IMAGE, "--instances", "6", "--dry-run")

    assert done.returncode == 1
    assert "MAX_INSTANCES is 5" in done.stderr


# ---- Canaries and rollbacks ----


def test_a_canary_shares_the_instances_with_the_revision_that_serves(tmp_path: Path) -> None:
    project = deployed(tmp_path, IMAGES[0])

    project.done("deploy.sh", "production", "--image", IMAGES[1], "--instances", "2", "--canary", "50")

    assert project.shares() == {"1": 50, "2": 50}
    pool = json.loads(json.dumps(project.pool()))
    del pool["status"]
    jsonschema.validate(pool, SCHEMA)


@pytest.mark.parametrize(("percent", "instances", "needed"), [("50", "1", "2"), ("20", "4", "5"), ("80", "3", "5")])
def test_a_canary_with_too_few_instances_for_both_sides_is_refused(
    percent: str, instances: str, needed: str, tmp_path: Path
) -> None:
    project = deployed(tmp_path, IMAGES[0])

    line = project.refused(
        "deploy.sh", "production", "--image", IMAGES[1], "--instances", instances, "--canary", percent
    )

    assert f"--instances {needed}" in line


def test_a_canary_of_a_new_pool_is_refused(tmp_path: Path) -> None:
    line = Project(tmp_path).refused("deploy.sh", "production", "--image", IMAGE, "--instances", "2", "--canary", "50")

    assert "a canary needs a revision that runs already" in line


def test_promoting_gives_the_canary_everything(tmp_path: Path) -> None:
    project = deployed(tmp_path, IMAGES[0])
    project.done("deploy.sh", "production", "--image", IMAGES[1], "--instances", "2", "--canary", "50")

    project.done("deploy.sh", "production", "--promote")

    assert project.shares() == {"2": 100}


def test_rolling_back_takes_the_last_revision_of_another_image_that_became_ready(tmp_path: Path) -> None:
    project = deployed(tmp_path, IMAGES[0])
    project.change(starts=False)
    project.run("deploy.sh", "production", "--image", IMAGES[1])
    project.change(starts=True)
    project.done("deploy.sh", "production", "--image", IMAGES[2])
    project.done("relaunch.sh", "production")

    said = project.done("rollback.sh", "production")

    assert project.shares() == {"1": 100}
    assert "from transcription-worker-00004-abc to transcription-worker-00001-abc" in said


def test_rolling_back_twice_goes_back_twice(tmp_path: Path) -> None:
    project = deployed(tmp_path, IMAGES[0], IMAGES[1], IMAGES[2])

    project.done("rollback.sh", "production")
    once = project.shares()
    project.done("rollback.sh", "production")

    assert (once, project.shares()) == ({"2": 100}, {"1": 100})


def test_after_parakeet_was_switched_off_a_rollback_does_not_switch_it_on_again_with_the_same_image(
    tmp_path: Path,
) -> None:
    project = deployed(tmp_path, IMAGES[0])
    project.done("rollback.sh", "production", "--to-deepgram")

    line = project.refused("rollback.sh", "production")

    assert "no earlier revision with another image" in line


def test_a_rollback_shows_image_share_and_age_of_each_revision(tmp_path: Path) -> None:
    project = deployed(tmp_path, IMAGES[0], IMAGES[1])

    said = project.done("rollback.sh", "production", "--list")

    assert re.search(rf"transcription-worker-00002-abc +100 % +yes +2026-11-28T10:02:00Z +{IMAGES[1]}", said)
    assert re.search(rf"transcription-worker-00001-abc +yes +2026-11-28T10:01:00Z +{IMAGES[0]}", said)


def test_rolling_back_without_a_pool_says_so(tmp_path: Path) -> None:
    assert "there is no worker pool" in Project(tmp_path).refused("rollback.sh", "production")


def test_parakeet_is_switched_off_on_all_instances_during_a_canary(tmp_path: Path) -> None:
    project = deployed(tmp_path, IMAGES[0])
    project.done("deploy.sh", "production", "--image", IMAGES[1], "--instances", "2", "--canary", "50")

    project.done("rollback.sh", "production", "--to-deepgram")

    assert project.shares() == {"3": 100}
    assert project.settings()["PARAKEET_ROLLOUT_PERCENT"] == "0"
    assert project.state["revisions"][-1]["spec"]["containers"][0]["image"] == IMAGES[0]


@pytest.mark.parametrize("lever", [("rollback.sh", "--to-deepgram"), ("relaunch.sh",)])
def test_the_levers_reach_every_instance_after_a_rollback_and_keep_the_good_image(
    lever: tuple[str, ...], tmp_path: Path
) -> None:
    project = deployed(tmp_path, IMAGES[0], IMAGES[1])
    project.done("rollback.sh", "production")

    project.done(lever[0], "production", *lever[1:])

    assert project.shares() == {"3": 100}
    assert project.state["revisions"][-1]["spec"]["containers"][0]["image"] == IMAGES[0]
    assert project.instances() == 1


def test_parakeet_stays_off_at_the_next_deployment(tmp_path: Path) -> None:
    project = deployed(tmp_path, IMAGES[0])
    project.done("rollback.sh", "production", "--to-deepgram")

    project.done("deploy.sh", "production", "--image", IMAGES[1])

    assert project.settings()["PARAKEET_ROLLOUT_PERCENT"] == "0"


def test_a_setting_is_changed_without_naming_an_image(tmp_path: Path) -> None:
    project = deployed(tmp_path, IMAGES[0])

    project.done("relaunch.sh", "production", "FALLBACK_BUDGET_USD_PER_DAY=100")

    assert project.settings()["FALLBACK_BUDGET_USD_PER_DAY"] == "100"
    assert project.settings()["JOBS_SUBSCRIPTION"] == "transcription-jobs-worker"


def test_a_setting_that_the_pool_does_not_have_is_refused(tmp_path: Path) -> None:
    line = Project(tmp_path).refused("relaunch.sh", "production", "GPU_BATCHSIZE=4")

    assert "GPU_BATCHSIZE is no setting of the pool" in line


def test_without_the_fallback_no_key_is_needed() -> None:
    environment = {entry["name"] for entry in container("production", ENABLE_FALLBACK="false")["env"]}

    assert "DEEPGRAM_API_KEY" not in environment
    assert {"DEEPGRAM_MODEL", "COST_OPTIMIZATION"} <= environment
