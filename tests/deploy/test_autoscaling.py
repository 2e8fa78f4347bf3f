import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.deploy.project import GIB, QUOTAS, Project
from tests.support.deploy.scripts import DEPLOY, IMAGE, ROOT, commands, dry_run, flag, rendered, script

VALUES = {
    "PROJECT_ID": "klipstream",
    "REGION": "us-central1",
    "POOL": "pool",
    "JOBS_SUBSCRIPTION": "jobs",
    "MIN_INSTANCES": "0",
    "MAX_INSTANCES": "5",
    "MAX_REPLICAS": "5",
    "MAX_CONCURRENT_JOBS": "4",
}


def scaled_object(name: str) -> dict[str, Any]:
    text = re.sub(r"\$\{(\w+)\}", lambda match: VALUES[match[1]], (DEPLOY / "autoscaling" / name).read_text())
    documents = list(yaml.safe_load_all(text))
    if name == "crema.yaml":
        return documents[0]["spec"]["scaledObjects"][0]["spec"]
    return documents[1]["spec"]


@pytest.mark.parametrize("name", ["crema.yaml", "keda.yaml"])
def test_an_instance_for_as_many_undelivered_messages_as_it_does_at_once(name: str) -> None:
    scaled = scaled_object(name)

    (trigger,) = scaled["triggers"]

    assert trigger["type"] == "prometheus"
    assert trigger["metadata"]["threshold"] == "4"
    assert (
        'subscription_num_undelivered_messages{monitored_resource="pubsub_subscription",subscription_id="jobs"}'
        in (trigger["metadata"]["query"])
    )
    assert (scaled["minReplicaCount"], scaled["maxReplicaCount"]) == (0, 5)


@pytest.mark.parametrize("name", ["crema.yaml", "keda.yaml"])
def test_scaling_down_waits_a_quarter_of_an_hour_and_takes_one_at_a_time(name: str) -> None:
    down = scaled_object(name)["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]

    assert down["stabilizationWindowSeconds"] == 900
    assert down["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 300}]


def test_the_autoscaler_may_change_this_pool_and_no_other() -> None:
    grants = [words for words in dry_run("autoscale.sh", "production") if "add-iam-policy-binding" in words]

    assert {(words[words.index("add-iam-policy-binding") + 1], flag(words, "role")) for words in grants} == {
        ("transcription-worker", "roles/run.developer"),
        ("transcription-scaler", "roles/run.invoker"),
    }


def test_an_unchanged_configuration_keeps_its_version() -> None:
    def version(**settings: str) -> str:
        made = commands(script("autoscale.sh", "production", "--dry-run", **settings).stdout)
        return next(
            words[5] for words in made if words[1:5] == ["parametermanager", "parameters", "versions", "create"]
        )

    assert version() == version()
    assert version() != version(MAX_INSTANCES="7")


def test_the_prices_beside_the_shape_are_those_of_the_documents() -> None:
    defaults = (DEPLOY / "env" / "defaults.env").read_text()

    for price in ("$0.905", "$1.138"):
        assert price in defaults
        assert price in (ROOT / "docs" / "operate" / "money.md").read_text()


def asked_for_at_most(folder: Path) -> int:
    """The most instances that the autoscaler's configuration asks for."""
    (text,) = [path.read_text() for path in folder.rglob("crema.yaml")]
    return int(yaml.safe_load(text)["spec"]["scaledObjects"][0]["spec"]["maxReplicaCount"])


def test_the_autoscaler_asks_for_no_more_than_the_quotas_let_run(tmp_path: Path) -> None:
    project = Project(tmp_path, quotas={**QUOTAS, "MemAllocPerProjectRegion": [str(40 * GIB)]})

    said = project.done("autoscale.sh", "production")

    assert asked_for_at_most(tmp_path) == 2
    assert "at most 2 instances, not 5: MemAllocPerProjectRegion=" in said


def test_the_autoscaler_asks_for_all_where_the_quotas_allow_it(tmp_path: Path) -> None:
    project = Project(tmp_path)

    project.done("autoscale.sh", "production")

    assert asked_for_at_most(tmp_path) == 5


def test_the_autoscaler_grows_by_one_at_a_time() -> None:
    up = scaled_object("crema.yaml")["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleUp"]

    assert up["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 60}]


def test_a_gcloud_that_cannot_grant_roles_on_a_pool_is_named_before_anything_changes(tmp_path: Path) -> None:
    project = Project(tmp_path, faults={"worker-pools add-iam-policy-binding --help": [2, "Invalid choice"]})

    line = project.refused("autoscale.sh", "production")

    assert "gcloud components update" in line
    assert not [call for call in project.calls if "create" in call]


def test_the_autoscalers_image_is_deployed_by_digest() -> None:
    commands_printed = dry_run("autoscale.sh", "production")

    (deployed,) = [words for words in commands_printed if words[1:3] == ["run", "deploy"]]

    assert flag(deployed, "image").endswith("autoscaler@${CREMA_DIGEST}")


def manifest(**settings: str) -> list[dict[str, Any]]:
    """Return the documents that deploy/gke.sh prints."""
    done = script("gke.sh", "production", "--image", IMAGE, **settings)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def test_the_manifest_for_gke_can_be_applied_as_it_is_printed() -> None:
    deployment, authentication, scaled = manifest()

    assert [one["kind"] for one in (deployment, authentication, scaled)] == [
        "Deployment",
        "TriggerAuthentication",
        "ScaledObject",
    ]
    assert scaled["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"] == "transcription-worker"
    template = deployment["spec"]["template"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert template["spec"]["terminationGracePeriodSeconds"] > 8
    (worker,) = template["spec"]["containers"]
    assert worker["resources"]["limits"] == {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "1"}
    assert {mount["name"] for mount in worker["volumeMounts"]} == {one["name"] for one in template["spec"]["volumes"]}
    assert "replicas" not in deployment["spec"]


def test_a_pod_on_gke_has_the_settings_and_probes_of_the_pool() -> None:
    pool = yaml.safe_load(rendered("production"))["spec"]["template"]["spec"]["containers"][0]
    worker = manifest()[0]["spec"]["template"]["spec"]["containers"][0]

    assert worker["env"] == [*pool["env"], {"name": "WORKER_REVISION", "value": "0" * 64}]
    assert (worker["startupProbe"], worker["livenessProbe"]) == (pool["startupProbe"], pool["livenessProbe"])
    assert worker["image"] == pool["image"]


def test_without_the_fallback_a_pod_on_gke_needs_no_key() -> None:
    worker = manifest(ENABLE_FALLBACK="false")[0]["spec"]["template"]["spec"]["containers"][0]

    assert "DEEPGRAM_API_KEY" not in {entry["name"] for entry in worker["env"]}
