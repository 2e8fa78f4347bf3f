"""Complete an IAM policy (JSON on stdin) with the data access logs that the transcription needs, and print it.

Everything that stands in the policy stays, exempted members and other services among it.
"""

import json
import sys
from typing import Any

LOG_TYPES = ("ADMIN_READ", "DATA_READ", "DATA_WRITE")
SERVICES = ("pubsub.googleapis.com", "secretmanager.googleapis.com", "storage.googleapis.com")


def completed(policy: dict[str, Any]) -> dict[str, Any]:
    """The policy with every log type switched on for every service."""
    configs = {config["service"]: config for config in policy.get("auditConfigs", [])}
    for service in SERVICES:
        logs = {log["logType"]: log for log in configs.get(service, {}).get("auditLogConfigs", [])}
        logs = {kind: {"logType": kind} for kind in LOG_TYPES} | logs
        configs[service] = {"service": service, "auditLogConfigs": list(logs.values())}
    return {**policy, "auditConfigs": list(configs.values())}


if __name__ == "__main__":
    json.dump(completed(json.load(sys.stdin)), sys.stdout, indent=2)
