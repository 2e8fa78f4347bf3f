"""Read and change a worker pool as gcloud describes it (Cloud Run v1 JSON). Standard library only.

pool.py COMMAND POOL.json REVISIONS.json [ARGUMENT...]

  table               the revisions, newest first: name, share of instances, ready, created, image
  serving             the revision that serves; of a canary the one it is compared with
  previous            the newest revision older than that one which became ready and has another image
  latest              the revision that was made last
  canary              that one, where it is ready and shares the instances with another; exit status 1 otherwise
  image [REVISION]    the image of that revision, or of the one that serves; exit status 1 where there is none
  setting NAME        a setting of the revision that serves; exit status 1 where it has none
  instances           how many instances are asked for
  diff NEW.yaml       what a rendered worker-pool.yaml would change
  like NAME=VALUE...  the pool with one new revision like the serving one, these settings changed, on all instances
  scaled N            the pool with N instances asked for and nothing else changed
"""

from __future__ import annotations  # an operator's Python may be 3.9

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Json = dict[str, Any]

COUNT = "run.googleapis.com/manualInstanceCount"
KEPT_ANNOTATIONS = ("run.googleapis.com/scalingMode", COUNT, "run.googleapis.com/description")
KEPT_ON_REVISIONS = ("run.googleapis.com/gpu-zonal-redundancy-disabled",)
SHAPE = {"VCPUS": "cpu", "MEMORY_GIB": "memory"}


def shares(pool: Json) -> dict[str, int]:
    """Return the percentage of the instances by revision."""
    status = pool.get("status", {})
    latest = status.get("latestReadyRevisionName", "")
    splits = status.get("instanceSplits") or pool.get("spec", {}).get("instanceSplits") or []
    found: dict[str, int] = {}
    for split in splits or [{"latestRevision": True, "percent": 100}]:
        name = split.get("revisionName") or latest
        found[name] = found.get(name, 0) + int(split.get("percent") or 0)
    return {name: percent for name, percent in found.items() if name and percent}


def newest_first(revisions: list[Json]) -> list[Json]:
    """Return the revisions by time of creation."""
    return sorted(revisions, key=lambda revision: str(revision["metadata"]["creationTimestamp"]), reverse=True)


def serving(pool: Json, revisions: list[Json]) -> Json | None:
    """Return the revision with the largest share, the oldest of equals: in a canary the one known to be good."""
    share = shares(pool)
    oldest_first = newest_first(revisions)[::-1]
    return max(
        (one for one in oldest_first if one["metadata"]["name"] in share),
        key=lambda one: share[one["metadata"]["name"]],
        default=None,
    )


def previous(pool: Json, revisions: list[Json]) -> Json | None:
    """Return the revision to roll back to: older than the serving one, of another image, and once ready."""
    now = serving(pool, revisions)
    if now is None:
        return None
    ordered = newest_first(revisions)
    older = ordered[ordered.index(now) + 1 :]
    return next((one for one in older if ready(one) and image(one) != image(now)), None)


def canary(pool: Json) -> str | None:
    """Return the latest revision if it is ready and shares the instances with another one."""
    share, latest = shares(pool), pool.get("status", {}).get("latestReadyRevisionName")
    return latest if latest in share and len(share) > 1 else None


def image_of(revisions: list[Json], name: str) -> str | None:
    """Return the image of the revision of that name, if there is one."""
    return next((image(one) for one in revisions if one["metadata"]["name"] == name), None)


def ready(revision: Json) -> bool:
    """Return whether the revision's instances started; one that serves nothing now still says so."""
    conditions = revision.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one.get("status") == "True" for one in conditions)


def container(resource: Json) -> Json:
    """Return the container of a revision, or of a pool's template."""
    spec = resource["spec"]
    spec = spec.get("template", {}).get("spec", spec)
    return spec["containers"][0]  # type: ignore[no-any-return]


def image(revision: Json) -> str:
    """Return the image's reference."""
    return str(container(revision)["image"])


def settings(resource: Json) -> dict[str, str]:
    """Return everything about a revision that an operator may change, by name."""
    one = container(resource)
    limits = one.get("resources", {}).get("limits", {})
    found = {"image": one["image"], "VCPUS": str(limits.get("cpu", ""))}
    found["MEMORY_GIB"] = str(limits.get("memory", "")).removesuffix("Gi")
    for entry in one.get("env") or []:
        secret = (entry.get("valueFrom") or {}).get("secretKeyRef")
        found[entry["name"]] = f"(secret {secret['name']})" if secret else str(entry.get("value") or "")
    return found


def settings_of_file(text: str) -> dict[str, str]:
    """Return the same of a rendered worker-pool.yaml, which has one form only."""
    found = {"image": re.findall(r'^ +image: "(.*)"$', text, re.MULTILINE)[0]}
    found["VCPUS"] = re.findall(r'^ +cpu: "(.*)"$', text, re.MULTILINE)[0]
    found["MEMORY_GIB"] = re.findall(r'^ +memory: "(.*)Gi"$', text, re.MULTILINE)[0]
    for name, value in re.findall(r"^ +- name: ([A-Z_0-9]+)\n +value: (.*)$", text, re.MULTILINE):
        found[name] = value.strip('"')
    of_a_key = r'^ +- name: ([A-Z_]+)\n +valueFrom:\n +secretKeyRef:\n +name: "(.*)"$'
    for name, secret in re.findall(of_a_key, text, re.MULTILINE):
        found[name] = f"(secret {secret})"
    return found


def difference(live: Json, text: str) -> list[str]:
    """Return a line for every setting that differs."""
    old, new = settings(live), settings_of_file(text)
    names = [name for name in {**new, **old} if old.get(name) != new.get(name)]
    return [f"{name:<30} {shown(old.get(name))} -> {shown(new.get(name))}" for name in names]


def shown(value: str | None) -> str:
    """Return a value as a person reads it."""
    return "(not set)" if value is None else value or "(empty)"


def bare(pool: Json) -> Json:
    """Return the pool without what the server fills in."""
    metadata = pool["metadata"]
    annotations = {name: metadata["annotations"][name] for name in KEPT_ANNOTATIONS if name in metadata["annotations"]}
    kept = {"name": metadata["name"], "labels": metadata.get("labels", {}), "annotations": annotations}
    return {"apiVersion": pool["apiVersion"], "kind": pool["kind"], "metadata": kept, "spec": dict(pool["spec"])}


def like(pool: Json, revision: Json, changes: dict[str, str]) -> Json:
    """Return the pool whose template is the revision with these settings, on all instances."""
    made, spec = bare(pool), json.loads(json.dumps(revision["spec"]))
    environment = spec["containers"][0].setdefault("env", [])
    for name, value in changes.items():
        environment[:] = [entry for entry in environment if entry["name"] != name]
        environment.append({"name": name, "value": value})
    spec.pop("containerConcurrency", None)  # a revision names it, a pool's template must not
    spec.pop("timeoutSeconds", None)
    metadata = revision["metadata"]
    annotations = metadata.get("annotations", {})
    template = {
        "labels": pool["spec"]["template"].get("metadata", {}).get("labels", {}),
        "annotations": {name: annotations[name] for name in KEPT_ON_REVISIONS if name in annotations},
    }
    made["spec"] = {"template": {"metadata": template, "spec": spec}}
    return made


def scaled(pool: Json, count: int) -> Json:
    """Return the pool with another number of instances."""
    made = bare(pool)
    made["metadata"]["annotations"][COUNT] = str(count)
    return made


def table(pool: Json, revisions: list[Json]) -> list[str]:
    """Return a line for every revision."""
    share = shares(pool)
    rows = [("REVISION", "SHARE", "READY", "CREATED", "IMAGE")]
    for one in newest_first(revisions):
        name = one["metadata"]["name"]
        percent = f"{share[name]} %" if name in share else ""
        rows.append((name, percent, "yes" if ready(one) else "no", one["metadata"]["creationTimestamp"], image(one)))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[4]]) for row in rows]


def name_of(revision: Json | None) -> str | None:
    """Return the revision's name, if there is one."""
    return str(revision["metadata"]["name"]) if revision else None


def like_serving(pool: Json, live: Json, changes: list[str]) -> str:
    """Return the JSON of the pool with one new revision."""
    return json.dumps(like(pool, live, dict(change.split("=", 1) for change in changes)), indent=2)


def main(command: str, pool: Json, revisions: list[Json], arguments: list[str]) -> str | None:
    """Return what the command prints; None where there is nothing of the kind."""
    now = serving(pool, revisions)
    live = now or pool
    commands: dict[str, Callable[[], str | None]] = {
        "table": lambda: "\n".join(table(pool, revisions)),
        "serving": lambda: name_of(now),
        "previous": lambda: name_of(previous(pool, revisions)),
        "latest": lambda: pool.get("status", {}).get("latestCreatedRevisionName"),
        "canary": lambda: canary(pool),
        "image": lambda: image_of(revisions, arguments[0]) if arguments else image(live),
        "setting": lambda: settings(live).get(arguments[0]),
        "instances": lambda: str(pool["metadata"].get("annotations", {}).get(COUNT) or 0),
        "diff": lambda: "\n".join(difference(live, Path(arguments[0]).read_text())),
        "like": lambda: like_serving(pool, live, arguments),
        "scaled": lambda: json.dumps(scaled(pool, int(arguments[0])), indent=2),
    }
    return commands[command]() if command in commands else sys.exit(__doc__)


if __name__ == "__main__":
    try:
        name, pool_path, revisions_path, *rest = sys.argv[1:]
    except ValueError:
        sys.exit(__doc__)
    documents = (json.loads(Path(path).read_text()) for path in (pool_path, revisions_path))
    printed = main(name, *documents, rest)
    if printed is None:
        sys.exit(1)
    print(printed)
