"""An empty Google Cloud project behind stand-ins for gcloud, bq and curl, for the scripts of deploy/."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.deploy.gcloud_server import Server
from tests.support.deploy.gcloud_twin import is_change
from tests.support.deploy.scripts import script

GIB = 1024**3
QUOTAS = {
    "NvidiaL4GpuAllocNoZonalRedundancyPerProjectRegion": ["9"],
    "CpuAllocPerProjectRegion": ["200000"],
    "MemAllocPerProjectRegion": [str(400 * GIB)],
}
IMAGES = [f"us-central1-docker.pkg.dev/klipstream/transcription/worker@sha256:{digit * 64}" for digit in "0123"]
COMPLETED = {
    "event_type": "transcription.completed",
    "transcription_metadata": {
        "words_count": 398,
        "method_used": "parakeet",
        "device_used": "NVIDIA L4",
        "processing_speed_ratio": 212.0,
        "cost_estimate_usd": 0.0004,
        "worker": "instance-1",
    },
}


@functools.cache
def server() -> Server:
    """Start the server of all projects of this process; it ends with the process."""
    return Server()


class Project:
    """The project, and the scripts run in it."""

    COMPLETED = COMPLETED

    def __init__(self, folder: Path, **differing: Any) -> None:
        self._folder = folder / "bin"
        self._folder.mkdir()
        (self._folder / "calls").touch()
        state = {
            "version": "528.0.0",
            "login": True,
            "billing": True,
            "quotas": QUOTAS,
            "kept": {},
            "images": list(IMAGES),
            "built": IMAGES[0],
            "revisions": [],
            "logs": [],
            "events": {},
            "faults": {},
            "refuses": "",
            "starts": True,
            "answers": COMPLETED,
            "answers_to_queries": "",
            "urls": {"/prometheus/": {"data": {"result": [{"value": [0, "3"]}]}}, "/timeSeries": {}},
            "lacks": [],
            "remarks": "",
            "interrupt_at": 0,
            **differing,
        }
        (self._folder / "project.json").write_text(json.dumps(state))
        for name in ("gcloud", "bq", "curl"):
            (self._folder / name).write_text(server().program(name, self._folder))
            (self._folder / name).chmod(0o755)
        self.environment = {
            "PATH": f"{self._folder}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "TMPDIR": str(folder),
            "RETRY_SECONDS": "0",
            "POLL_SECONDS": "0",
        }

    def run(self, name: str, *args: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run a script; the caller looks at how it ended."""
        return script(name, *args, **{**self.environment, **environment})

    def done(self, name: str, *args: str, **environment: str) -> str:
        """Run a script that must succeed; return what it printed."""
        ended = self.run(name, *args, **environment)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def refused(self, name: str, *args: str, **environment: str) -> str:
        """Run a script that must fail; return its last line on stderr."""
        ended = self.run(name, *args, **environment)
        assert ended.returncode != 0, ended.stdout
        return ended.stderr.strip().splitlines()[-1]

    def change(self, **values: Any) -> None:
        """Set parts of the project's state."""
        (self._folder / "project.json").write_text(json.dumps({**self.state, **values}))

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self._folder / "project.json").read_text())
        return found

    @property
    def calls(self) -> list[str]:
        """Every command line so far."""
        return (self._folder / "calls").read_text().splitlines()

    def changes(self) -> list[str]:
        """The command lines that change something."""
        return [call for call in self.calls if is_change(call)]

    def names(self) -> dict[str, list[str]]:
        """The names of all that is there, by kind."""
        return {kind: sorted(names) for kind, names in self.state["kept"].items() if names}

    def pool(self, name: str = "transcription-worker") -> dict[str, Any]:
        """The worker pool as the server keeps it."""
        found: dict[str, Any] = self.state["kept"]["run worker-pools"][name]
        return found

    def settings(self, revision: int = -1) -> dict[str, str]:
        """The environment of a revision's container, by age; the newest by default."""
        spec = self.state["revisions"][revision]["spec"]
        return {entry["name"]: entry.get("value", "(secret)") for entry in spec["containers"][0]["env"]}

    def shares(self, name: str = "transcription-worker") -> dict[str, int]:
        """The percentage of the instances by the revision's number."""
        splits = self.pool(name)["status"]["instanceSplits"]
        return {one["revisionName"].split("-")[-2].lstrip("0"): one["percent"] for one in splits}

    def instances(self, name: str = "transcription-worker") -> int:
        return int(self.pool(name)["metadata"]["annotations"]["run.googleapis.com/manualInstanceCount"])
