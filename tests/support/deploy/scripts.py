"""The scripts of deploy/ as tests run them: dry, or with a stand-in for gcloud."""

import os
import shlex
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
RUNBOOK = ROOT / "docs" / "operate" / "runbook.md"
IMAGE = "us-central1-docker.pkg.dev/klipstream/transcription/worker@sha256:" + "0" * 64
BARE = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}


def script(name: str, *args: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run it with that environment and nothing else of ours; what it renders is this test process's own."""
    folder = Path(tempfile.gettempdir()) / f"deploy-scripts-{os.getpid()}"
    folder.mkdir(exist_ok=True)
    known = {**BARE, "TMPDIR": str(folder), **environment}
    return subprocess.run([DEPLOY / name, *args], capture_output=True, text=True, check=False, env=known)


def dry_run(name: str, *args: str, **environment: str) -> list[list[str]]:
    """Every command that it would run, in words."""
    done = script(name, *args, "--dry-run", **environment)
    assert done.returncode == 0, done.stderr
    return commands(done.stdout)


def commands(printed: str) -> list[list[str]]:
    return [shlex.split(line) for line in printed.splitlines() if line.startswith(("gcloud ", "bq "))]


def flag(command: list[str], name: str) -> str:
    """The value of --name=... in a command."""
    (value,) = (word.removeprefix(f"--{name}=") for word in command if word.startswith(f"--{name}="))
    return value


def rendered(environment: str, *args: str, **settings: str) -> str:
    """The worker pool's YAML."""
    done = script("deploy.sh", environment, "--render", "--image", IMAGE, *args, **settings)
    assert done.returncode == 0, done.stderr
    return done.stdout


class FakeGcloud:
    """Programs named gcloud and bq that note how they were called; each answers with the text set for the longest
    beginning of its words that is known, and fails where there is none.
    """

    def __init__(self, folder: Path, answers: Mapping[str, str]) -> None:
        self._calls = folder / "calls"
        self._calls.touch()
        for name in ("gcloud", "bq"):
            lines = ["#!/bin/bash", f'echo "{name} $*" >>{shlex.quote(str(self._calls))}', f'case "{name} $*" in']
            known = sorted(answers.items(), key=lambda answer: -len(answer[0]))
            lines += [f"{shlex.quote(words)}*) printf '%s' {shlex.quote(text)} ;;" for words, text in known]
            lines += ["*) exit 1 ;;", "esac"]
            (folder / name).write_text("\n".join(lines) + "\n")
            (folder / name).chmod(0o755)
        self.path = f"{folder}:{os.environ['PATH']}"

    @property
    def calls(self) -> list[str]:
        """Every command line so far."""
        return self._calls.read_text().splitlines()
