import json
import subprocess
import sys
from typing import Any

from tests.support.deploy.scripts import DEPLOY


def completed(policy: dict[str, Any], *exempted: str) -> dict[str, Any]:
    command = [sys.executable, DEPLOY / "audit_policy.py", *exempted]
    done = subprocess.run(command, input=json.dumps(policy), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_access_to_messages_objects_and_secrets_is_logged() -> None:
    configs = completed({"bindings": []})["auditConfigs"]

    assert {config["service"]: {log["logType"] for log in config["auditLogConfigs"]} for config in configs} == {
        f"{service}.googleapis.com": {"ADMIN_READ", "DATA_READ", "DATA_WRITE"}
        for service in ("pubsub", "storage", "secretmanager")
    }


def test_existing_bindings_of_the_policy_stay() -> None:
    exempted = {"logType": "DATA_READ", "exemptedMembers": ["user:a@example.com"]}
    other = {"service": "compute.googleapis.com", "auditLogConfigs": [{"logType": "DATA_READ"}]}
    policy = {
        "etag": "abc",
        "bindings": [{"role": "roles/viewer", "members": ["user:a@example.com"]}],
        "auditConfigs": [other, {"service": "storage.googleapis.com", "auditLogConfigs": [exempted]}],
    }

    result = completed(policy)

    assert (result["etag"], result["bindings"]) == (policy["etag"], policy["bindings"])
    assert other in result["auditConfigs"]
    (storage,) = (config for config in result["auditConfigs"] if config["service"] == "storage.googleapis.com")
    assert exempted in storage["auditLogConfigs"]


def test_completing_twice_changes_nothing() -> None:
    once = completed({"bindings": []})

    assert completed(once) == once


def test_the_workers_own_pulls_and_claims_are_left_out_but_not_its_access_to_secrets() -> None:
    configs = {one["service"]: one for one in completed({"bindings": []}, "serviceAccount:worker")["auditConfigs"]}

    for name in ("pubsub", "storage"):
        logs = configs[f"{name}.googleapis.com"]["auditLogConfigs"]
        assert [log["exemptedMembers"] for log in logs] == [["serviceAccount:worker"]] * 3
    assert all("exemptedMembers" not in log for log in configs["secretmanager.googleapis.com"]["auditLogConfigs"])
