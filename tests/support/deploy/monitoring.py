"""deploy/monitoring as the scripts render it, and Prometheus's own judge of rules."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.deploy.scripts import DEPLOY

MONITORING = DEPLOY / "monitoring"
VALUES = {
    "ENVIRONMENT": "production",
    "POOL": "pool",
    "JOBS_SUBSCRIPTION": "jobs",
    "DEAD_LETTER_SUBSCRIPTION": "dead",
    "COST_ALERT_USD_PER_DAY": "50",
    "PROJECT_ID": "klipstream",
    "REGION": "us-central1",
    "SCALER": "scaler",
    "RUNBOOK_URL": "https://example.org/RUNBOOK.md",
}


def loaded(path: Path) -> Any:
    return yaml.safe_load(re.sub(r"\$\{([A-Z_]+)\}", lambda match: VALUES[match[1]], path.read_text()))


def alerts() -> Mapping[str, Mapping[str, Any]]:
    """The policies' conditions by file name."""
    found = {}
    for path in sorted((MONITORING / "alerts").glob("*.yaml")):
        (condition,) = loaded(path)["conditions"]
        found[path.stem] = condition["conditionPrometheusQueryLanguage"]
    return found


def policies() -> Mapping[str, Mapping[str, Any]]:
    """The alert policies whole, by file name."""
    return {path.stem: loaded(path) for path in sorted((MONITORING / "alerts").glob("*.yaml"))}


def panels() -> Mapping[str, tuple[str, ...]]:
    """The dashboard's queries by title."""
    tiles = loaded(MONITORING / "dashboard.yaml")["mosaicLayout"]["tiles"]
    return {
        tile["widget"]["title"]: tuple(
            data["timeSeriesQuery"]["prometheusQuery"] for data in tile["widget"]["xyChart"]["dataSets"]
        )
        for tile in tiles
    }


def queries() -> Iterator[str]:
    """All of them."""
    yield from (condition["query"] for condition in alerts().values())
    for of_one in panels().values():
        yield from of_one


def promtool() -> str:
    """The program, or a skip; a failure instead where CI_REQUIRE_PROMTOOL is set."""
    if found := shutil.which("promtool"):
        return found
    reason = "promtool is not installed (Debian: apt-get install prometheus)"
    if os.environ.get("CI_REQUIRE_PROMTOOL"):
        pytest.fail(reason)
    pytest.skip(reason)


def judged(folder: Path, *arguments: str, **files: object) -> "subprocess.CompletedProcess[str]":
    """Run promtool on files that hold these objects, named after them."""
    for name, content in files.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return subprocess.run([promtool(), *arguments], cwd=folder, capture_output=True, text=True, check=False)
