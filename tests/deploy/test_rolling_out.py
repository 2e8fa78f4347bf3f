import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.support.deploying import DEPLOY, IMAGE, FakeGcloud, dry_run, rendered, script
from worker.settings import Settings

SCHEMA = yaml.safe_load((DEPLOY / "schemas" / "worker-pool.schema.json").read_text())
QUOTA = "gcloud beta quotas info list"
POOL = "gcloud beta run worker-pools"


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


def test_the_shape_is_one_l4_with_4_vcpus_and_16_gib_unless_told_otherwise() -> None:
    assert container("production")["resources"]["limits"] == {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "1"}
    larger = container("production", VCPUS="8", MEMORY_GIB="32")
    assert larger["resources"]["limits"] == {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "1"}


def test_the_worker_knows_every_setting_that_it_is_given() -> None:
    known = {name.upper() for name in Settings.model_fields}

    assert set(environment_of("production")) - known == {"OTEL_RESOURCE_ATTRIBUTES"}  # OpenTelemetry's own


def test_the_settings_are_the_workers_own_defaults_but_for_names_and_the_baked_model() -> None:
    given = {name.lower(): value for name, value in environment_of("production").items() if value != "(secret)"}
    known = set(Settings.model_fields)
    given = {name: value for name, value in given.items() if value and name in known}  # as the environment is read

    settings, defaults = Settings(**given), Settings()
    differing = {name for name in given if getattr(settings, name) != getattr(defaults, name)}

    buckets = {"output_bucket", "state_bucket", "input_buckets", "output_buckets"}
    watched = {"health_host", "metrics_exporter", "traces_exporter"}
    assert differing == buckets | watched | {"parakeet_model_name"}


def test_the_key_comes_from_the_secret() -> None:
    (key,) = (entry for entry in container("staging")["env"] if entry["name"] == "DEEPGRAM_API_KEY")

    assert key["valueFrom"] == {"secretKeyRef": {"name": "deepgram-api-key-staging", "key": "latest"}}


def test_loading_the_model_has_the_longest_time_that_cloud_run_gives() -> None:
    probe = container("production")["startupProbe"]

    assert probe["periodSeconds"] * probe["failureThreshold"] == 240


def test_a_name_that_is_not_set_is_an_error(tmp_path: Path) -> None:
    for file in ("lib.sh", "deploy.sh", "worker-pool.yaml"):
        (tmp_path / file).write_text((DEPLOY / file).read_text().replace("${REGION}", "${REGOIN}"))
    (tmp_path / "env").symlink_to(DEPLOY / "env")
    (tmp_path / "deploy.sh").chmod(0o755)

    done = script(str(tmp_path / "deploy.sh"), "staging", "--render", "--image", IMAGE)

    assert done.returncode != 0
    assert "needs REGOIN" in done.stderr


def test_an_image_by_tag_is_refused() -> None:
    done = script("deploy.sh", "staging", "--image", "worker:latest", "--dry-run")

    assert done.returncode == 1
    assert "must name a digest" in done.stderr


def test_the_quota_is_asked_first() -> None:
    commands = dry_run("deploy.sh", "production", "--image", IMAGE)

    assert [" ".join(words[:5]) for words in commands] == [QUOTA, f"{POOL} replace", f"{POOL} describe"]


def test_no_roll_out_beyond_the_quota(tmp_path: Path) -> None:
    gcloud = FakeGcloud(tmp_path, {QUOTA: "2\n", f"{POOL} describe": "2\n"})

    done = script("deploy.sh", "production", "--image", IMAGE, PATH=gcloud.path)

    assert done.returncode == 1
    assert "the quota for L4s in us-central1 is 2; 3 are needed to replace 2" in done.stderr
    assert not [call for call in gcloud.calls if "replace" in call]


def test_no_roll_out_beyond_the_most_instances() -> None:
    done = script("deploy.sh", "production", "--image", IMAGE, "--instances", "6", "--dry-run")

    assert done.returncode == 1
    assert "MAX_INSTANCES is 5" in done.stderr


def test_a_roll_out_keeps_the_number_of_instances(tmp_path: Path) -> None:
    gcloud = FakeGcloud(tmp_path, {QUOTA: "9\n", f"{POOL} describe": "3\n", f"{POOL} replace": ""})

    done = script("deploy.sh", "production", "--image", IMAGE, PATH=gcloud.path)

    assert done.returncode == 0, done.stderr
    assert 'manualInstanceCount: "3"' in done.stdout


def test_a_canary_shares_the_instances_with_the_revision_that_runs(tmp_path: Path) -> None:
    described = {
        f"{POOL} describe": "2\n",
        f"{POOL} describe transcription-worker --region=us-central1 --format=value(status": "pool-007\n",
    }
    gcloud = FakeGcloud(tmp_path, {QUOTA: "9\n", f"{POOL} replace": "", **described})

    done = script("deploy.sh", "production", "--image", IMAGE, "--canary", "50", PATH=gcloud.path)

    assert done.returncode == 0, done.stderr
    shown = "\n".join(line.removeprefix("#   ") for line in done.stdout.splitlines() if line.startswith("#   "))
    pool = yaml.safe_load(shown)
    jsonschema.validate(pool, SCHEMA)
    assert pool["spec"]["instanceSplits"] == [
        {"revisionName": "pool-007", "percent": 50},
        {"latestRevision": True, "percent": 50},
    ]


def test_a_canary_of_a_new_pool_is_refused(tmp_path: Path) -> None:
    gcloud = FakeGcloud(tmp_path, {QUOTA: "9\n"})

    done = script("deploy.sh", "production", "--image", IMAGE, "--canary", "50", PATH=gcloud.path)

    assert done.returncode == 1
    assert "a canary needs a revision that runs already" in done.stderr


def test_the_share_of_videos_is_a_setting_of_the_roll_out() -> None:
    pool = rendered("production", PARAKEET_ROLLOUT_PERCENT="10")

    assert re.search(r'PARAKEET_ROLLOUT_PERCENT\n\s+value: "10"', pool)


def test_rolling_back_takes_the_revision_before_the_newest(tmp_path: Path) -> None:
    listed = f"{POOL} revisions list --worker-pool=transcription-worker --region=us-central1"
    gcloud = FakeGcloud(tmp_path, {listed: "pool-3\npool-2\npool-1\n", f"{POOL} update-instance-split": ""})

    done = script("rollback.sh", "production", PATH=gcloud.path)

    assert done.returncode == 0, done.stderr
    assert [call for call in gcloud.calls if call.endswith("--to-revisions=pool-2=100")]


def test_rolling_back_without_an_earlier_revision_is_an_error(tmp_path: Path) -> None:
    gcloud = FakeGcloud(tmp_path, {f"{POOL} revisions list": "pool-1\n"})

    done = script("rollback.sh", "production", PATH=gcloud.path)

    assert done.returncode == 1
    assert "no earlier revision" in done.stderr


def test_rolling_back_to_deepgram_keeps_the_code() -> None:
    (words,) = dry_run("rollback.sh", "production", "--to-deepgram")

    assert words[4:6] == ["update", "transcription-worker"]
    assert "--update-env-vars=PARAKEET_ROLLOUT_PERCENT=0" in words
