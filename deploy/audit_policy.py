"""Complete an IAM policy (JSON on stdin) with the data access logs that the transcription needs, and print it.

Everything in the policy stays, including exempted members and other services. The members in the arguments are exempted
from the logs that are switched on, except for reading secrets.
"""

import json
import sys
from typing import Any

LOG_TYPES = ("ADMIN_READ", "DATA_READ", "DATA_WRITE")
SERVICES = ("pubsub.googleapis.com", "secretmanager.googleapis.com", "storage.googleapis.com")


def completed(policy: dict[str, Any], exempted: list[str]) -> dict[str, Any]:
    """Return the policy with every log type switched on for every service."""
    configs = {config["service"]: config for config in policy.get("auditConfigs", [])}
    for service in SERVICES:
        logs = {log["logType"]: log for log in configs.get(service, {}).get("auditLogConfigs", [])}
        spared = {} if service.startswith("secretmanager") or not exempted else {"exemptedMembers": exempted}
        logs = {kind: {"logType": kind, **spared} for kind in LOG_TYPES} | logs
        configs[service] = {"service": service, "auditLogConfigs": list(logs.values())}
    return {**policy, "auditConfigs": list(configs.values())}


if __name__ == "__main__":
    json.dump(completed(json.load(sys.stdin), sys.argv[1:]), sys.stdout, indent=2)
