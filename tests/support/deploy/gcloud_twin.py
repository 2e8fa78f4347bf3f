"""gcloud, bq and curl as the scripts of deploy/ use them, over a project that is kept in a file.

Programs of those names ask a server in the test's process (gcloud_server.py). The twin implements no API: it stores
created resources, refuses missing or existing ones with gcloud's wording, and simulates the worker pool: revisions,
shares of the instances, workers that become ready and log it, and a job whose event comes back. Faults that a test
wants are in the project under `faults`: the beginning of a command line -> [exit status, stderr]; `remarks` come before
everything that gcloud prints; at the change whose number is `interrupt_at` the terminal sends Ctrl-C; `overtaken_by` is
the image of another operator, who deploys it as soon as a pool was replaced.
"""

import base64
import json
import re
from pathlib import Path
from typing import Any

import yaml

VERBS = {
    "create",
    "describe",
    "list",
    "update",
    "delete",
    "add-iam-policy-binding",
    "remove-iam-policy-binding",
    "enable",
    "replace",
    "publish",
}
VERBS |= {"pull", "read", "add", "add-version", "cp", "rm", "deploy", "submit", "print-access-token", "version"}
VERBS |= {"get-iam-policy", "set-iam-policy", "set-cleanup-policies", "update-instance-split", "list-tags", "disable"}
POOL_GROUP = "run worker-pools"
TRACKS = {"alpha", "beta"}


class Refused(Exception):
    """A command that fails; carries the exit status and the text on stderr."""

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status = status


class Interrupted(Exception):
    """A command that was carried out, and during which Ctrl-C was typed."""


class Command:
    """A command line taken apart: group, verb, names, flags."""

    def __init__(self, words: list[str]) -> None:
        self.flags: dict[str, str] = {}
        plain: list[str] = []
        for word in words:
            if word.startswith("--"):
                name, _, value = word[2:].partition("=")
                self.flags[name] = value
            else:
                plain.append(word)
        plain = [word for word in plain if word not in TRACKS]
        at = next((index for index, word in enumerate(plain) if word in VERBS), len(plain) - 1)
        self.group, self.verb, self.names = " ".join(plain[:at]), plain[at], plain[at + 1 :]

    @property
    def name(self) -> str:
        return self.names[0] if self.names else ""


class Project:
    """The state, read from the file and written back."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.state: dict[str, Any] = json.loads(path.read_text())

    def save(self) -> None:
        self._path.write_text(json.dumps(self.state, indent=1))

    def kept(self, group: str) -> dict[str, Any]:
        found: dict[str, Any] = self.state["kept"].setdefault(group, {})
        return found


def main(program: str, words: list[str], folder: Path) -> str:
    """Do the command; return what it prints."""
    project = Project(folder / "project.json")
    line = " ".join([program, *words])
    with (folder / "calls").open("a") as calls:
        calls.write(line + "\n")
    try:
        refuse_as_told(project, line)
        if program == "gcloud":
            printed = remarked(project, gcloud(project, Command(words)))
        else:
            printed = {"bq": bq, "curl": curl}[program](project, words)
        interrupt(project, line)
    except Refused as exc:
        raise Refused(remarked(project, str(exc)), exc.status) from exc
    finally:
        project.save()
    return printed


def remarked(project: Project, text: str) -> str:
    remarks: str = project.state["remarks"]
    return f"{remarks}\n{text}" if remarks else text


def is_change(line: str) -> bool:
    """Return whether a command line changes something in the project."""
    reading = (" describe", " list", " read ", " show ", "version", "print-access-token", "--dry-run", "bq query")
    return line.startswith(("gcloud ", "bq ")) and not any(word in line for word in reading)


def interrupt(project: Project, line: str) -> None:
    if project.state["interrupt_at"] and is_change(line):
        project.state["interrupt_at"] -= 1
        if project.state["interrupt_at"] == 0:
            raise Interrupted


def refuse_as_told(project: Project, line: str) -> None:
    for beginning, fault in project.state["faults"].items():
        if re.search(beginning, line) and fault[2:] != [0]:
            if fault[2:]:
                fault[2] -= 1
            raise Refused(fault[1], fault[0])


def gcloud(project: Project, command: Command) -> str:  # noqa: C901, PLR0911, PLR0912 - a table of commands
    state = project.state
    match command.group, command.verb:
        case "", "version":
            return str(state["version"])
        case "auth", "print-access-token":
            if not state["login"]:
                raise Refused("ERROR: (gcloud.auth.print-access-token) There was a problem refreshing auth tokens")
            return "a-token"
        case "projects", "describe":
            return "123456"
        case "projects", "get-iam-policy":
            return "{}"
        case "services identity", "create":
            return ""
        case "projects" | "services" | "iam" | "beta services identity", _ if command.verb != "create":
            return ""
        case "billing projects", "describe":
            return str(state["billing"])
        case "quotas info", "list":
            return "".join(f"{name},{value}\n" for name, values in state["quotas"].items() for value in values)
        case "logging", "read":
            return logs(project, command.name)
        case "secrets versions", "add" | "list":
            return versions(project, command)
        case "pubsub topics", "publish":
            return publish(project, command)
        case "pubsub subscriptions", "pull":
            return pull(project, command)
        case "builds", "submit":
            return build(project, command)
    if command.group in {POOL_GROUP, f"{POOL_GROUP} revisions"}:
        return worker_pool(project, command)
    return resource(project, command)


def resource(project: Project, command: Command) -> str:  # noqa: C901, PLR0912 - a table of verbs
    """Anything that is kept by its name."""
    group = "run services" if (command.group, command.verb) == ("run", "deploy") else command.group
    kept, name = project.kept(group), command.name
    if command.verb == "create" and not name:  # an alert, a dashboard, a budget, a channel: named by the service
        title = command.flags.get("display-name") or title_of(command.flags) or command.flags.get("type", "")
        kept[f"{command.group}/{len(kept) + 1}".replace(" ", "/")] = {"title": title}
        return ""
    if "parameters" in command.group and command.flags.get("parameter"):
        name = f"{command.flags['parameter']}/{name}" if name else ""
    if command.group == "iam service-accounts" and "@" not in name:
        name = f"{name}@klipstream.iam.gserviceaccount.com"
    if command.group == "scheduler jobs" and command.verb in {"create", "update"}:
        name = command.names[1]
    match command.verb:
        case "create":
            if name in kept:
                raise Refused(f"ERROR: ALREADY_EXISTS: {name}")
            kept[name] = dict(command.flags)
        case "deploy" | "cp" | "add":
            kept[name if command.verb == "deploy" else command.names[-1]] = dict(command.flags)
        case "rm":
            for one in command.names:
                for key in [key for key in kept if key.startswith(one)]:
                    del kept[key]
                project.kept("storage buckets").pop(one, None)
        case (
            "describe"
            | "update"
            | "delete"
            | "add-iam-policy-binding"
            | "remove-iam-policy-binding"
            | "set-cleanup-policies"
        ):
            require(project, command, name)
            if command.verb == "delete":
                kept.pop(name, None)
            if command.verb == "update":
                kept[name]["noted"] = kept[name].get("noted", {}) | labels_of(command.flags.get("update-labels", ""))
            if command.verb == "describe":
                return described(project, name, kept.get(name, {}), command.flags.get("format", ""))
        case "list":
            return listed(kept, command)
        case _:
            return ""
    return ""


def labels_of(text: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in text.split(",") if pair)


def described(project: Project, name: str, kept: dict[str, Any], wanted: str) -> str:
    """Format the output of a `describe`."""
    if wanted == "value(filter)":
        return str(kept.get("message-filter", ""))
    if "status.url" in wanted:
        return f"https://{name}.example.com"
    if label := re.search(r"value\(labels\.(\w+)\)", wanted):
        return str(kept.get("noted", {}).get(label[1], ""))
    if "image_summary.digest" in wanted:
        return str(project.state["built"].split("@")[1])
    return name


def require(project: Project, command: Command, name: str) -> None:
    kept = project.kept(command.group)
    if name not in kept and command.group != "artifacts docker images":
        raise Refused(f"ERROR: (gcloud) NOT_FOUND: {command.group} {name} not found")
    if (
        command.group == "artifacts docker images"
        and "/cloud-run-oss-images/" not in name
        and name not in project.state["images"]
    ):
        raise Refused(f"ERROR: (gcloud.artifacts.docker.images.describe) Image not found: {name}")


def title_of(flags: dict[str, str]) -> str:
    """The display name in the file that an alert or a dashboard is made from."""
    for flag in ("policy-from-file", "config-from-file"):
        if flag in flags:
            found = re.search(r'^displayName: "(.*)"', Path(flags[flag]).read_text(), re.MULTILINE)
            return found[1] if found else ""
    return ""


def listed(kept: dict[str, Any], command: Command) -> str:
    wanted = re.search(r'displayName="(.*)"', command.flags.get("filter", ""))
    address = re.search(r"email_address=(\S+)", command.flags.get("filter", ""))
    names = [name for name, one in kept.items() if not wanted or one.get("title") == wanted[1]]
    if parameter := command.flags.get("parameter"):
        names = [name.split("/")[1] for name in kept if name.startswith(f"{parameter}/")]
    if address:
        names = list(kept)
    return "".join(f"{name}\n" for name in names)


def versions(project: Project, command: Command) -> str:
    secret = command.name
    if secret not in project.kept("secrets"):
        raise Refused(f"ERROR: NOT_FOUND: Secret [{secret}] not found")
    if command.verb == "add":
        project.kept("secrets")[secret]["versions"] = "1"
    return "1\n" if project.kept("secrets")[secret].get("versions") else ""


def worker_pool(project: Project, command: Command) -> str:  # noqa: PLR0911 - a table of verbs
    """The worker pools' commands: replace makes a revision wherever the template changed."""
    pools, state = project.kept(POOL_GROUP), project.state
    match command.group, command.verb:
        case _, "add-iam-policy-binding":
            return ""
        case _, "replace":
            return replace(project, command)
        case "run worker-pools revisions", "list":
            found = state["revisions"]
            if command.flags.get("format") == "json":
                return json.dumps(found)
            return "".join(f"{one['metadata']['name']}\n" for one in found[::-1])
    if command.name not in pools:
        raise Refused(f"ERROR: (gcloud.beta.run.worker-pools.describe) Cannot find worker pool [{command.name}]")
    pool = pools[command.name]
    match command.verb:
        case "describe" if command.flags.get("format") == "json":
            return json.dumps(pool)
        case "describe" if "latestCreatedRevisionName" in command.flags.get("format", ""):
            return str(pool["status"]["latestCreatedRevisionName"])
        case "update-instance-split":
            split(pool, command)
        case "delete":
            del pools[command.name]
    return ""


def split(pool: dict[str, Any], command: Command) -> None:
    latest = pool["status"]["latestReadyRevisionName"]
    if "to-latest" in command.flags:
        pool["spec"]["instanceSplits"] = [{"latestRevision": True, "percent": 100}]
        pool["status"]["instanceSplits"] = [{"revisionName": latest, "percent": 100}]
        return
    shares = [part.rsplit("=", 1) for part in command.flags["to-revisions"].split(",")]
    pool["spec"]["instanceSplits"] = [{"revisionName": name, "percent": int(percent)} for name, percent in shares]
    pool["status"]["instanceSplits"] = pool["spec"]["instanceSplits"]


def replace(project: Project, command: Command) -> str:
    state = project.state
    wanted = read(Path(command.name))
    name = wanted["metadata"]["name"]
    if "dry-run" in command.flags:
        if state["refuses"]:
            raise Refused(f"ERROR: (gcloud.beta.run.worker-pools.replace) INVALID_ARGUMENT: {state['refuses']}")
        return ""
    pool = project.kept(POOL_GROUP).get(name)
    if pool is None or pool["spec"]["template"] != wanted["spec"]["template"]:
        revision = make_revision(state, name, wanted["spec"]["template"])
    else:
        revision = pool["status"]["latestCreatedRevisionName"]
    status = dict(pool["status"]) if pool else {}
    status |= {"latestCreatedRevisionName": revision}
    if state["starts"]:
        status |= {"latestReadyRevisionName": revision}
    splits = wanted["spec"].get("instanceSplits") or [{"latestRevision": True, "percent": 100}]
    latest = status.get("latestReadyRevisionName", revision)
    status["instanceSplits"] = [
        {"revisionName": one.get("revisionName") or latest, "percent": one["percent"]} for one in splits
    ]
    project.kept(POOL_GROUP)[name] = {**wanted, "status": status}
    if image := state.pop("overtaken_by", None):
        template = json.loads(json.dumps(wanted["spec"]["template"]))
        template["spec"]["containers"][0]["image"] = image
        revision = make_revision(state, name, template)
        status |= {"latestCreatedRevisionName": revision, "latestReadyRevisionName": revision}
    if not state["starts"]:
        raise Refused(f"ERROR: (gcloud.beta.run.worker-pools.replace) Revision '{revision}' is not ready")
    if int(wanted["metadata"]["annotations"]["run.googleapis.com/manualInstanceCount"]):
        state["logs"].append([revision, "worker.ready"])
    return ""


def make_revision(state: dict[str, Any], pool: str, template: dict[str, Any]) -> str:
    number = len(state["revisions"]) + 1
    name = f"{pool}-{number:05d}-abc"
    state["revisions"].append(
        {
            "metadata": {
                "name": name,
                "creationTimestamp": f"2026-11-28T10:{number:02d}:00Z",
                "annotations": template.get("metadata", {}).get("annotations", {}),
            },
            "spec": template["spec"],
            "status": {"conditions": [{"type": "Ready", "status": "True" if state["starts"] else "False"}]},
        }
    )
    return name


def read(path: Path) -> dict[str, Any]:
    """A file that `replace` gets: JSON, or our YAML."""
    found: dict[str, Any] = yaml.safe_load(path.read_text())
    return found


def logs(project: Project, filter_text: str) -> str:
    revision = re.search(r'revision_name="([^"]*)"', filter_text)
    message = re.search(r'jsonPayload.event="([^"]*)"', filter_text)
    found = [
        f"2026-11-28T10:00:00Z\tevent={event};worker={name}\n"
        for name, event in project.state["logs"]
        if (not revision or revision[1] == name) and (not message or message[1] == event)
    ]
    return found[-1] if found else ""


def publish(project: Project, command: Command) -> str:
    """A job: where an instance runs, its event is put into the subscription that the filter names."""
    job, state = json.loads(command.flags["message"]), project.state
    for name in sorted(project.kept(POOL_GROUP)):
        count = project.kept(POOL_GROUP)[name]["metadata"]["annotations"]["run.googleapis.com/manualInstanceCount"]
        if int(count) and state["answers"]:
            state["events"][job["job_id"]] = {**state["answers"], "job": job}
    return ""


def pull(project: Project, command: Command) -> str:
    kept = project.kept("pubsub subscriptions").get(command.name)
    if kept is None:
        raise Refused(f"ERROR: NOT_FOUND: Resource not found (resource={command.name}).")
    wanted = re.search(r'video_id = "([^"]*)"', kept.get("message-filter", ""))
    event = project.state["events"].pop(wanted[1], None) if wanted else None
    data = base64.b64encode(json.dumps(event).encode()).decode()
    return json.dumps([{"ackId": "1", "message": {"data": data}}] if event else [])


def build(project: Project, command: Command) -> str:
    """A build: the image that it pushed is known from now on, by its digest and by its commit."""
    if "substitutions" not in command.flags:
        project.state["images"] += read(Path(command.flags["config"]))["images"]
        return ""
    registry = project.state["built"].split("@")[0]
    commit = re.search(r"COMMIT_SHA=(\w+)", command.flags["substitutions"])
    project.state["images"] += [project.state["built"], f"{registry}:{commit[1] if commit else ''}"]
    return ""


def bq(project: Project, words: list[str]) -> str:
    tables = project.kept("bq")
    plain = [word for word in words if not word.startswith("-")]
    name = next((word for word in plain[1:] if ":" in word and not word.startswith("serviceAccount")), "")
    match plain[0]:
        case "show" if name not in tables:
            raise Refused(f"BigQuery error in show operation: Not found: {name}", 2)
        case "mk":
            tables[name] = {}
        case "rm":
            for key in [key for key in tables if key.startswith(name)]:
                del tables[key]
        case "query":
            return str(project.state["answers_to_queries"])
    return ""


def curl(project: Project, words: list[str]) -> str:
    url = next(word for word in words if word.startswith("https://"))
    if "testIamPermissions" in url:
        asked = json.loads(words[words.index("--data") + 1])["permissions"]
        return json.dumps({"permissions": [one for one in asked if one not in project.state["lacks"]]})
    for part, answer in project.state["urls"].items():
        if part in url:
            return json.dumps(answer)
    raise Refused("curl: (22) The requested URL returned error: 404", 22)
