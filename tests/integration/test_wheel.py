"""The wheel as strangers install it: its size, what it leaves out, its base install on every Python, its types."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).with_name("uv")
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
MOST_BYTES = 600_000
"""A bound that makes growth a decision: 485 kB with rooms and engine, 598 kB with page, bulk, triage and keyterms."""
ASKING = {"worker/cli/main.py", "worker/app/recogniser.py"}
"""Modules that import what the checkout alone has after asking whether it is there."""

PUBLISHER = """
from schemas.events import CompletedEvent
from worker.client import submit, wait_for

job = {"job_id": "j-1", "video_id": "v-1", "audio_uri": "gs://audio/v-1.mp3"}
message_id: str = submit(job, project_id="p", topic="t")
ended = wait_for(job, project_id="p", subscription="s", timeout_seconds=60)
uri: str = ended.artefacts.words.uri if isinstance(ended, CompletedEvent) else ""
"""


def ran(*command: str | Path, folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a command away from the checkout, so that no import finds the source tree."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment = {**kept, "COLUMNS": "200", **environment}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def interpreter(version: str) -> str:
    """Return a Python of that version. Skips where the machine has none."""
    installed = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    for found in (shutil.which(f"python{version}"), *map(str, installed)):
        if found and subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode == 0:
            return found
    pytest.skip(f"no Python {version} on this machine")


def base_install(wheel: Path, python: str, folder: Path) -> Path:
    """Return the folder of programs of a fresh environment with the wheel and no extra. Skips without an index."""
    made = ran(UV, "venv", "--python", python, "venv", folder=folder)
    assert made.returncode == 0, made.stderr
    installed = ran(UV, "pip", "install", "--python", "venv/bin/python", wheel, folder=folder)
    if installed.returncode and not os.environ.get("CI"):
        pytest.skip(f"no package index: {installed.stderr.strip()[-200:]}")
    assert installed.returncode == 0, installed.stderr
    return folder / "venv" / "bin"


def test_the_wheel_is_small_and_leaves_model_recordings_servers_and_benchmarks_out(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    assert wheel.stat().st_size < MOST_BYTES
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"worker", "schemas"}
    assert [name for name in names if "/embedded/" in name or name.endswith((".nemo", ".mp3", ".m4a"))] == []
    assert {"worker/py.typed", "schemas/py.typed", "worker/app/sample/speech.opus"} <= set(names)


def test_every_import_of_a_module_in_the_wheel_is_in_the_wheel(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    modules = {
        name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): name for name in archive.namelist()
    }

    imported = {
        (name, node.module if node.module in modules else f"{node.module}.{node.names[0].name}")
        for name in modules.values()
        if name.endswith(".py") and name not in ASKING
        for node in ast.walk(ast.parse(archive.read(name)))
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in {"worker", "schemas"}
    }

    assert [f"{name}: {module}" for name, module in sorted(imported) if module not in modules] == []


def test_the_wheel_carries_the_version_and_the_extras_of_the_project_file(wheel: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    archive = zipfile.ZipFile(wheel)
    (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))

    lines = archive.read(metadata).decode().splitlines()

    assert f"Version: {project['version']}" in lines
    assert re.findall(r"^## \[(\d.*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0] == project["version"]
    extras = {line.split()[1] for line in lines if line.startswith("Provides-Extra:")}
    assert extras == set(project["optional-dependencies"])
    assert [extra for extra in extras if f"| `{extra}` |" not in (ROOT / "README.md").read_text()] == []


@pytest.mark.parametrize("version", PYTHONS)
def test_the_base_install_has_the_client_and_its_command_says_what_to_install(
    version: str, wheel: Path, tmp_path: Path
) -> None:
    programs = base_install(wheel, interpreter(version), tmp_path)

    imported = ran(programs / "python", "-c", "import worker.client, schemas.events", folder=tmp_path)
    asked = ran(programs / "klipstream-worker", "--help", folder=tmp_path)

    assert imported.returncode == 0, imported.stderr
    assert asked.returncode == 1
    assert len(asked.stderr.splitlines()) == 2
    assert "pip install 'klipstream-worker[worker,parakeet]'" in asked.stderr


def test_a_strict_type_check_of_a_publisher_sees_the_types_of_the_client(wheel: Path, tmp_path: Path) -> None:
    programs = base_install(wheel, sys.executable, tmp_path)
    (tmp_path / "right.py").write_text(PUBLISHER)
    (tmp_path / "wrong.py").write_text(PUBLISHER.replace("timeout_seconds=60", "timeout_seconds='60'"))
    command = (sys.executable, "-m", "mypy", "--strict", "--python-executable", programs / "python")

    right = ran(*command, "right.py", folder=tmp_path)
    wrong = ran(*command, "wrong.py", folder=tmp_path)

    assert right.returncode == 0, right.stdout
    assert wrong.returncode == 1
    assert '"timeout_seconds"' in wrong.stdout


@pytest.mark.parametrize("command", ["demo", "dev", "emulators"])
def test_a_command_that_needs_the_checkout_says_so_when_run_from_the_wheel(
    command: str, wheel: Path, tmp_path: Path
) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    environment: Mapping[str, str] = {"PYTHONPATH": str(tmp_path / "installed")}

    done = ran(sys.executable, "-m", "worker", command, folder=tmp_path, **environment)

    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 2
    assert f"make install, then .venv/bin/klipstream-worker {command}" in done.stderr
